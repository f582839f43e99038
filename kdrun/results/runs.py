"""Reading what runs and sweeps left, in whatever state they are: what is missing or damaged is said, not raised."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrun.results.statistics import Summary

ROW_KEYS = {"role", "model", "n", "asked", "points", "test_accuracy"}
MAIN = ("student", "baseline", "teacher")  # whose numbers a run is about: the first of these that it has


def short(name: str) -> str:
    """Shorten a run's name to its last part, which names it as well: `e8438b`, for a sweep's cell `e8438b/0`."""
    found = re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-([0-9a-f]{6}(?:/\d+)?)", name)
    return found[1] if found else name


@dataclass(frozen=True)
class Run:
    """A run's folder with what its files say; `problem` where they cannot be read."""

    name: str  # as people type it: the folder's name, for a sweep's cell the sweep's name and the cell's number
    folder: Path
    record: Mapping[str, Any]
    comparison: Mapping[str, Any] | None = None
    problem: str | None = None

    @property
    def status(self) -> str:
        """How it ended, or how far it is."""
        return "unreadable" if self.problem else str(self.record.get("status", "unreadable"))

    @property
    def reason(self) -> str | None:
        """Why it has no numbers, or not all."""
        return self.problem or self.record.get("reason")

    @property
    def state(self) -> str:
        """Status and reason in one."""
        return f"{self.status}: {self.reason}" if self.reason else self.status

    @property
    def typed(self) -> str:
        """The overrides that were typed."""
        return " ".join(map(str, self.record.get("overrides") or []))

    @property
    def paired(self) -> Mapping[str, Any] | None:
        """The paired difference between student and baseline."""
        return (self.comparison or {}).get("paired")

    def row(self, role: str) -> Mapping[str, Any] | None:
        """Give the comparison's row of a role."""
        rows = self.comparison["rows"] if self.comparison else []
        return next((row for row in rows if row["role"] == role), None)

    def main(self) -> Mapping[str, Any] | None:
        """Give the row that the run is about."""
        return next((row for role in MAIN if (row := self.row(role))), None)

    def choice(self, group: str) -> str:
        """Say what was chosen of a group."""
        value = (self.record.get("choices") or {}).get(group)
        return "+".join(map(str, value)) if isinstance(value, list) else str(value) if value else "–"


def number(row: Mapping[str, Any] | None, key: str) -> Summary | None:
    """Give one summary of a comparison's row, such as `test_accuracy`; None where it has none."""
    return Summary(**row[key]) if row and row.get(key) else None


def n_of(row: Mapping[str, Any] | None) -> str:
    """Say over how many seeds a row's numbers go: `3`, or `5 of 6` where some did not finish."""
    if row is None:
        return "–"
    return str(row["n"]) if row["n"] == row["asked"] else f"{row['n']} of {row['asked']}"


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read a run folder."""
    cell = (folder.parent / "sweep.json").is_file()
    name = name or (f"{folder.parent.name}/{folder.name}" if cell else folder.name)
    record, problem = _read(folder / "run.json", "status")
    if record is None:
        return Run(name, folder, {}, None, problem or "no run.json")
    comparison, problem = _read(folder / "comparison.json", "rows")
    return Run(name, folder, record, comparison, problem)


def read_sweep(folder: Path) -> tuple[dict[str, Any], list[Run]]:
    """Read a sweep's sweep.json and one run per cell, those too that have not started.

    Raises ValueError where sweep.json is missing or damaged.
    """
    record, problem = _read(folder / "sweep.json", "cells")
    if record is None:
        raise ValueError(f"{folder}: {problem or 'no sweep.json'}")
    cells = []
    over = record["status"] != "running"
    for cell in record["cells"]:
        place = folder / str(cell["number"])
        name = f"{folder.name}/{place.name}"
        if (place / "run.json").is_file():
            run = read_run(place, name)
            ended = {"status": "interrupted"} if over and run.status == "running" else {}
        else:
            run = Run(name, place, {**cell, "created": record.get("created"), "verb": record.get("verb")})
            ended = {"status": "not started"} if over and run.status == "waiting" else {}
        cells.append(Run(name, place, {**run.record, **ended}, run.comparison, run.problem))
    return record, cells


def all_runs(outputs: Path) -> list[Run]:
    """Give every run under an outputs folder, newest first; a sweep's cells follow one another."""
    groups = [[read_run(file.parent)] for file in outputs.glob("runs/*/*/run.json")]
    groups += [cells for file in outputs.glob("sweeps/*/*/sweep.json") if (cells := cells_in(file.parent))]
    groups.sort(key=lambda g: (str(g[0].record.get("created", "")), g[0].name), reverse=True)
    return [run for group in groups for run in group]


def cells_in(sweep: Path) -> list[Run]:
    """Give a sweep's cells; where its sweep.json is damaged, those that have started."""
    try:
        return read_sweep(sweep)[1]
    except ValueError:
        return [read_run(file.parent) for file in sorted(sweep.glob("*/run.json"))]


def _read(path: Path, key: str) -> tuple[dict[str, Any] | None, str | None]:
    """Read a JSON file that must hold `key`; (None, None) where there is no file, (None, problem) where damaged."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError) as error:
        return None, f"{path.name} is damaged ({error})"
    if not isinstance(content, dict) or key not in content:
        return None, f"{path.name} is damaged (it holds no {key!r})"
    if key == "rows" and not (isinstance(content[key], list) and all(set(row) >= ROW_KEYS for row in content[key])):
        return None, f"{path.name} is damaged (its rows are not those of a comparison)"
    return content, None
