"""Reading what runs and sweeps left, in whatever state they are: what is missing or damaged is said, not raised."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdrun import process
from kdrun.records import ArtifactJson, CellJson, ComparisonJson, LaneJson, RowJson, RunJson, SweepJson
from kdrun.results.statistics import Paired, Summary

ROW_KEYS = {"role", "model", "n", "asked", "points", "test_accuracy"}
# how a sweep's cell without numbers may stand
UNFINISHED = ("running", "waiting", "interrupted", "stopped", "not started")
LANE_KEYS = {"name", "paired", "single_run", "gap_closed", "verdict"}
MAIN = ("student", "baseline", "teacher")  # whose numbers a run is about: the first of these that it has


def short(name: str) -> str:
    """Shorten a run's name to its last part, which names it as well: `e8438b`, for a sweep's cell `e8438b/0`."""
    match = re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-([0-9a-f]{6}(?:/\d+)?)", name)
    return match[1] if match else name


@dataclass(frozen=True)
class Run:
    """A run's folder with what its files say; `problem` where they cannot be read."""

    name: str  # as people type it: the folder's name, for a sweep's cell the sweep's name and the cell's number
    folder: Path
    record: RunJson
    comparison: ComparisonJson | None = None
    problem: str | None = None
    lane: str = ""  # the one of several students that this is about

    def store(self, outputs: Path) -> Path:
        """Return the store that holds its artifacts: under `outputs`, or beside the run wherever that lies."""
        used = [str(a["folder"]) for a in self.record.get("artifacts") or []][:1]
        places = [outputs / "store", *(parent / "store" for parent in self.folder.resolve().parents)]
        return next((p for p in places if used and (p / used[0]).is_dir()), places[0])

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
    def paired(self) -> Paired | None:
        """The paired difference between student and baseline."""
        paired = self.comparison.get("paired") if self.comparison else None
        return Paired(**paired) if paired else None

    def rows(self, role: str) -> list[RowJson]:
        """Return the comparison's rows of a role."""
        return [row for row in (self.comparison["rows"] if self.comparison else []) if row["role"] == role]

    def row(self, role: str) -> RowJson | None:
        """Return the first of the comparison's rows of a role."""
        return next(iter(self.rows(role)), None)

    def teachers(self) -> list[RowJson]:
        """Return the comparison's rows of teachers, their ensemble and assistants; the student learned from them."""
        rows = self.comparison["rows"] if self.comparison else []
        return [row for row in rows if row["role"] in ("teacher", "assistant") or row.get("ensemble_of") == "teacher"]

    def teacher(self) -> RowJson | None:
        """Return the row that the student is held against: the teacher's, or that of the ensemble of several."""
        rows = [row for row in self.teachers() if row["role"] != "assistant"]
        return next((row for row in rows if row["role"] == "ensemble"), rows[0] if len(rows) == 1 else None)

    def by_lane(self) -> list[Run]:
        """Return the run once for each of its students, with that student's rows and statistics; most have one."""
        lanes = (self.comparison or {}).get("lanes") or []
        if self.comparison is None or not any(lane["name"] for lane in lanes):
            return [self]
        return [self._about(self.comparison, lane) for lane in lanes]

    def _about(self, comparison: ComparisonJson, lane: LaneJson) -> Run:
        name = str(lane["name"])
        own: ComparisonJson = {
            **comparison,
            "rows": [row for row in comparison["rows"] if row.get("lane", "") in ("", name)],
            "paired": lane["paired"],
            "single_run": lane["single_run"],
            "gap_closed": lane["gap_closed"],
            "verdict": lane["verdict"],
        }
        return replace(self, lane=name, comparison=own)

    def main(self) -> RowJson | None:
        """Return the row that the run is about."""
        return next((row for role in MAIN if (row := self.row(role))), None)

    def trainings(self) -> dict[str, tuple[RowJson | None, str | None]]:
        """Return the networks by name, each with its row of the comparison and the folder of its first training.

        A run without a comparison may have artifacts all the same; an ensemble has no training.
        """
        if self.comparison is not None:
            rows = self.comparison["rows"]
            return {
                str(row.get("name") or row["role"]): (row, (row["points"] or [{}])[0].get("folder")) for row in rows
            }
        trainings: dict[str, tuple[None, str]] = {}
        for used in self.record.get("artifacts") or []:
            trainings.setdefault(called(used)[0], (None, str(used["folder"])))
        return dict(trainings)

    def choice(self, group: str) -> str:
        """Return what was chosen of a group."""
        value = (self.record.get("choices") or {}).get(group)
        return "+".join(map(str, value)) if isinstance(value, list) else str(value) if value else "–"


def called(used: ArtifactJson) -> tuple[str, str]:
    """Return the names of an artifact in run.json: its label with and without its student."""
    label = str(used.get("label") or used["role"])
    return f"{label} {used.get('lane') or ''}".strip(), label


def number(row: Mapping[str, Any] | None, key: str) -> Summary | None:
    """Return one summary of a comparison's row, such as `test_accuracy`; None where it has none."""
    return Summary(**row[key]) if row and row.get(key) else None


def reasons(named: Iterable[tuple[str, Run]]) -> list[str]:
    """Return why runs are not done, a line for each reason with the names of the runs that share it."""
    names: dict[str, list[str]] = {}
    for name, run in named:
        if run.status != "done" and run.reason:
            names.setdefault(run.state, []).append(name)
    return [f"{', '.join(alike)}: {state}" for state, alike in names.items()]


def n_of(row: RowJson | None) -> str:
    """Return over how many seeds a row's numbers go: `3`, or `5 of 6` where some did not finish."""
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


def begun_cells(folder: Path) -> list[CellJson]:
    """List the cells of a search that have begun, by their numbers: what it tries next it does not know itself."""
    cells: list[CellJson] = []
    for place in folder.glob("*/run.json"):
        if place.parent.name.isdigit():
            unreadable: RunJson = {"status": "unreadable", "reason": None}
            record: RunJson = _read(place, "status")[0] or unreadable
            cells.append({"number": int(place.parent.name), "overrides": record.get("overrides", []),
                          "status": record["status"], "reason": record.get("reason")})  # fmt: skip
    return sorted(cells, key=lambda cell: cell["number"])


def read_sweep(folder: Path) -> tuple[SweepJson, list[Run]]:
    """Read a sweep's sweep.json and one run per cell, those too that have not started.

    Raises ValueError where sweep.json is missing or damaged.
    """
    record: SweepJson | None
    record, problem = _read(folder / "sweep.json", "cells")
    if record is None:
        raise ValueError(f"{folder}: {problem or 'no sweep.json'}")
    if record.get("searched"):
        known = {cell["number"]: cell for cell in [*begun_cells(folder), *record["cells"]]}
        record["cells"] = [known[number] for number in sorted(known)]
    cells = []
    over = record["status"] != "running"
    for cell in record["cells"]:
        place = folder / str(cell["number"])
        name = f"{folder.name}/{place.name}"
        if (place / "run.json").is_file():
            run, ended = read_run(place, name), {"running": "interrupted"}
        else:
            waiting: Any = {**cell, "created": record.get("created"), "verb": record.get("verb")}
            run, ended = Run(name, place, waiting), {"waiting": "not started"}
        if over and run.status in ended:
            run = replace(run, record={**run.record, "status": ended[run.status]})
        cells.append(run)
    return record, cells


def all_runs(outputs: Path) -> list[Run]:
    """Return every run under an outputs folder, newest first; a sweep's cells follow one another."""
    groups = [[read_run(file.parent)] for file in outputs.glob("runs/*/*/run.json")]
    groups += [cells for file in outputs.glob("sweeps/*/*/sweep.json") if (cells := cells_in(file.parent))]
    groups.sort(key=lambda g: (str(g[0].record.get("created", "")), g[0].name), reverse=True)
    return [run for group in groups for run in group]


def cells_in(sweep: Path) -> list[Run]:
    """Return a sweep's cells; where its sweep.json is damaged, those that have started."""
    try:
        return read_sweep(sweep)[1]
    except ValueError:
        return [read_run(file.parent) for file in sorted(sweep.glob("*/run.json"))]


def _read(path: Path, key: str) -> tuple[Any, str | None]:
    """Read a JSON file that must hold `key`; (None, None) where there is no file, (None, problem) where damaged."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError) as error:
        return None, f"{path.name} is damaged ({error})"
    if not isinstance(content, dict) or key not in content:
        return None, f"{path.name} is damaged (it holds no {key!r})"
    if key == "rows" and not (_are(content[key], ROW_KEYS) and _are(content.get("lanes", []), LANE_KEYS)):
        return None, f"{path.name} is damaged (its rows are not those of a comparison)"
    named = content.get("process")  # older records have none
    if content.get("status") == "running" and isinstance(named, dict) and process.gone(named):
        content |= {"status": "stopped", "reason": "its process is gone; the same command resumes"}
    return content, None


def _are(content: Any, keys: Collection[str]) -> bool:
    """Return whether this is a list of objects that hold at least these keys."""
    return isinstance(content, list) and all(isinstance(row, dict) and set(row) >= set(keys) for row in content)
