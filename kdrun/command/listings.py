"""What the listing verbs share: their words, the configuration files and their one-line descriptions."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from kdrun.command.groups import options, user_dirs

DEFAULT_OUTPUTS = os.environ.get("KDRUN_OUTPUTS", "outputs")


class Words(argparse.ArgumentParser):
    """An argument parser whose errors read like all others."""

    def error(self, message: str) -> NoReturn:
        """Refuse in kdrun's words; the caller prints them and exits 2."""
        raise ValueError(f"{self.prog}: {message}; kdrun {self.prog} --help explains it")


def words(verb: str, rest: Sequence[str], *names: str, outputs: bool = False) -> argparse.Namespace:
    """Read a listing verb's words: optional positional names, and --outputs where it reads results."""
    parser = Words(prog=verb, add_help=False)
    for name in names:
        parser.add_argument(name, nargs="?" if name == "name" else "*")
    if outputs:
        parser.add_argument("--outputs", default=DEFAULT_OUTPUTS)
    if verb == "report":
        parser.add_argument("--to")
        parser.add_argument("--columns", default="")
    # outputs=DIR is how the other verbs take it
    return parser.parse_args([f"--{word}" if outputs and word.startswith("outputs=") else word for word in rest])


def files(group: str) -> dict[str, Path]:
    """Return the file behind every choice of a group, the user's own ./conf first."""
    dirs = user_dirs()
    return {
        name: next(d / group / f"{name}.yaml" for d in dirs if (d / group / f"{name}.yaml").is_file())
        for name in options({"model": "student"}.get(group, group), dirs)
    }


def description(path: Path) -> str:
    """Return the first comment line of a configuration file that is not for Hydra."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return next((line.lstrip("# ") for line in lines if line.startswith("#") and not line.startswith("# @")), "")


def node(path: Path, group: str) -> dict[str, Any]:
    """Read a file's settings: without its defaults list, and from under its own key where it is global."""
    content = yaml.safe_load(path.read_text()) or {}
    content.pop("defaults", None)
    return dict(content[group]) if set(content) == {group} else dict(content)
