"""kdrun datasets: the data sets that dataset=NAME chooses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kdrun.checks import nearest
from kdrun.command.listings import description, files, words
from kdrun.results.tables import Table


def main(rest: Sequence[str]) -> int:
    """Print the list, or one data set's split, source, usual networks and settings."""
    name = words("datasets", rest, "name").name
    paths = files("dataset")
    if name is not None:
        if name not in paths:
            raise ValueError(f"{name}: there is no such data set.{nearest(name, paths)} Existing: {', '.join(paths)}")
        return _one(name, paths[name])
    rows = [[name, description(path)] for name, path in paths.items()]
    notes = [
        "files are looked for in dataset.root, then KDRUN_DATA, then ~/.cache/kdrun",
        "your own images: dataset=folder dataset.root=DIR, or a .zip, with train/CLASS/* and test/CLASS/*",
        "kdrun datasets NAME shows split, source, usual networks and recipe, and settings",
    ]
    print(Table(["name", "description"], rows, notes=notes).to_text())
    return 0


def _one(name: str, path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    head, _, settings = text.partition("\ndataset:\n")
    facts = [line.lstrip("# ") for line in head.splitlines() if line.startswith("#") and not line.startswith("# @")]
    print("\n".join([f"{name}: {description(path)}", *facts[1:]]))
    if usual := _usual(yaml.safe_load(text) or {}):
        print(f"usual: {usual} (what is typed wins)")
    print(f"\nsettings (dataset.KEY=VALUE), from {path}:")
    # a user's own file may have another layout
    print("\n".join(f"  {line.removeprefix('  ')}" for line in (settings or text).splitlines()))
    return 0


def _usual(content: dict[str, Any]) -> str:
    """Return the choices that the data set brings, as they would be typed."""
    brought = [
        (str(key), value) for one in content.get("defaults", []) if isinstance(one, dict) for key, value in one.items()
    ]
    return " ".join(
        f"{key.removeprefix('override /')}={value}" for key, value in brought if key.startswith("override /")
    )
