"""What the listing verbs share: their arguments, the configuration files and the one-line descriptions in them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from kdrun.command import groups

DEFAULT_OUTPUTS = os.environ.get("KDRUN_OUTPUTS", "outputs")


class Words(argparse.ArgumentParser):
    """An argument parser whose errors read like all others of kdrun."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError, which the caller prints before it exits 2."""
        raise ValueError(f"{self.prog}: {message}; see kdrun {self.prog} --help")


def words(verb: str, rest: Sequence[str], *names: str, outputs: bool = False) -> argparse.Namespace:
    """Parse a listing verb's words: optional positional names, and --outputs if it reads results."""
    parser = Words(prog=verb, add_help=False)
    for name in names:
        parser.add_argument(name, nargs="?" if name == "name" else "*")
    if outputs:
        parser.add_argument("--wide", action="store_true")
        parser.add_argument("--outputs", default=DEFAULT_OUTPUTS)
    if verb == "runs":
        parser.add_argument("-n", type=int)
    if verb == "report":
        parser.add_argument("--all", action="store_true")
        parser.add_argument("--to")
        parser.add_argument("--columns", default="")
    # the other verbs take outputs=DIR, so accept that as well
    return parser.parse_intermixed_args(
        [f"--{word}" if outputs and word.startswith("outputs=") else word for word in rest]
    )


def files(group: str) -> dict[str, Path]:
    """Return the file behind every choice of a group, the user's own ./conf first."""
    return groups.files(group, groups.user_dirs())


def description(path: Path) -> str:
    """Return the first comment line of a configuration file that is not for Hydra."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return next((line.lstrip("# ") for line in lines if line.startswith("#") and not line.startswith("# @")), "")


def node(path: Path, group: str) -> dict[str, Any]:
    """Read a file's settings without its defaults list; a global file has them under the group's key."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    content.pop("defaults", None)
    return dict(content[group]) if set(content) == {group} else dict(content)
