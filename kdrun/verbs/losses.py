"""kdrun losses: the losses that loss=NAME chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdrun.checks import as_typed, nearest
from kdrun.command.listings import description, files, node, words
from kdrun.results.tables import Table

FAMILIES = ("response", "feature", "relation", "contrastive", "mutual")


def main(rest: Sequence[str]) -> int:
    """Print the list, or one loss's settings with the sources of their defaults."""
    name = words("losses", rest, "name").name
    paths = files("loss")
    if name is not None:
        if name not in paths:
            raise ValueError(f"{name}: there is no such loss.{nearest(name, paths)} Existing: {', '.join(paths)}")
        return _one(name, paths[name])
    order = sorted(paths, key=lambda name: (FAMILIES.index(family(paths[name])), name))
    rows = [[family(p := paths[name]), name, _weight(node(p, name)), description(p)] for name in order]
    notes = [
        "weight: of the term beside the labels' cross-entropy (loss.ce.weight); pair: an experiment may set its own",
        "kdrun losses NAME shows a loss's settings and their sources; several add up: 'loss=[kd,crd]'",
    ]
    print(Table(["family", "name", "weight", "what it is"], rows, notes=notes).to_text())
    return 0


def family(path: Path) -> str:
    """Return the family that a loss's file names, or the first, as a user's own file may name none."""
    named = re.search(r"^# family: (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return named[1] if named and named[1] in FAMILIES else FAMILIES[0]


def _one(name: str, path: Path) -> int:
    print(f"{name}: {description(path)}\n")
    print(f"settings (loss.{name}.KEY=VALUE), from {path}:")
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("# @")) + 1
    print("\n".join(f"  {line}" for line in lines[first:] if not line.startswith("# family:")))
    return 0


def _weight(settings: dict[str, Any]) -> str:
    if settings["weight"] is None:
        return as_typed(settings.get("weighed_by"))
    value = as_typed(settings["weight"])
    if published := re.fullmatch(r"\$\{kdrun\.published:[\w.]+,\s*([\d.e-]+)\}", value):
        return f"{float(published[1]):g} (pair)"
    return value.strip("${}") if value.startswith("${") else f"{float(value):g}"
