"""Read the files of runs and sweeps in any state: what is missing or damaged is reported, not raised."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from kdrun import process, sealed
from kdrun.records import ArtifactJson, CellJson, ComparisonJson, LaneJson, RowJson, RunJson, SweepJson, Verdict
from kdrun.results import unsealed
from kdrun.results.statistics import Paired, Summary

Record = TypeVar("Record")

# states of a sweep's cell without numbers
UNFINISHED = ("running", "waiting", "interrupted", "stopped", "not started")
MAIN = ("student", "baseline", "teacher")  # a run is about the first of these roles that it has


def short(name: str) -> str:
    """Return a run's short name, its last part: `e8438b`, for a sweep's cell `e8438b/0`."""
    match = re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-([0-9a-f]{6}(?:/\d+)?)", name)
    return match[1] if match else name


@dataclass(frozen=True)
class Run:
    """A run's folder with the content of its files; `problem` says why they cannot be read."""

    name: str  # as it is typed: the folder's name, for a sweep's cell the sweep's name and the cell's number
    folder: Path
    record: RunJson
    comparison: ComparisonJson | None = None
    problem: str | None = None
    lane: str = ""  # the student that this view is about, if there are several

    def store(self, outputs: Path) -> Path:
        """Return the store that holds its artifacts: under `outputs`, or in a parent folder of the run."""
        used = [str(a["folder"]) for a in self.record.get("artifacts") or []][:1]
        places = [outputs / "store", *(parent / "store" for parent in self.folder.resolve().parents)]
        return next((p for p in places if used and (p / used[0]).is_dir()), places[0])

    @property
    def status(self) -> str:
        """How the run ended, or that it is running or waiting."""
        return "unreadable" if self.problem else str(self.record.get("status", "unreadable"))

    @property
    def reason(self) -> str | None:
        """Why the run has no numbers, or not all of them."""
        return self.problem or self.record.get("reason")

    @property
    def state(self) -> str:
        """Status and reason."""
        return f"{self.status}: {self.reason}" if self.reason else self.status

    @property
    def config(self) -> dict[str, Any]:
        """The composed configuration; empty if it is unknown."""
        return self.record.get("config") or {}

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
        """Return the comparison's first row of a role."""
        return next(iter(self.rows(role)), None)

    def teachers(self) -> list[RowJson]:
        """Return the comparison's rows of teachers, their ensemble and assistants, which the student learned from."""
        rows = self.comparison["rows"] if self.comparison else []
        return [row for row in rows if row["role"] in ("teacher", "assistant") or row.get("ensemble_of") == "teacher"]

    def teacher(self) -> RowJson | None:
        """Return the teacher's row, or that of the ensemble of several teachers."""
        rows = [row for row in self.teachers() if row["role"] != "assistant"]
        return next((row for row in rows if row["role"] == "ensemble"), rows[0] if len(rows) == 1 else None)

    def by_lane(self) -> list[Run]:
        """Return a view of the run for each of its students, with that student's rows and statistics."""
        lanes = (self.comparison or {}).get("lanes") or []
        if self.comparison is None or not any(lane["name"] for lane in lanes):
            return [self]
        return [self._about(self.comparison, lane) for lane in lanes]

    def _about(self, comparison: ComparisonJson, lane: LaneJson) -> Run:
        rows = [row for row in comparison["rows"] if row.get("lane", "") in ("", lane["name"])]
        own = {**comparison, **{key: lane.get(key) for key in Verdict.__annotations__}, "rows": rows}
        return replace(self, lane=str(lane["name"]), comparison=cast(ComparisonJson, own))

    def main(self) -> RowJson | None:
        """Return the row that the run is about: see MAIN."""
        return next((row for role in MAIN if (row := self.row(role))), None)

    def trainings(self) -> dict[str, tuple[RowJson | None, str | None]]:
        """Return by name each network's row of the comparison and the folder of its first training.

        A run without a comparison may have artifacts, but no rows; an ensemble has no training.
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
        """Return the choice of a config group, as text."""
        value = (self.record.get("choices") or {}).get(group)
        return "+".join(map(str, value)) if isinstance(value, list) else str(value) if value else "–"


def called(used: ArtifactJson) -> tuple[str, str]:
    """Return an artifact's label with and without the student that it belongs to."""
    label = str(used.get("label") or used["role"])
    return f"{label} {used.get('lane') or ''}".strip(), label


def number(row: Mapping[str, Any] | None, key: str) -> Summary | None:
    """Return one summary of a comparison's row, such as `test_accuracy`; None if the row lacks it."""
    return Summary(**row[key]) if row and row.get(key) else None


def reasons(named: Iterable[tuple[str, Run]]) -> list[str]:
    """Return why runs are not done, a line for each reason with the names of the runs that share it."""
    names: dict[str, list[str]] = {}
    for name, run in named:
        if run.status != "done" and run.reason:
            names.setdefault(run.state, []).append(name)
    return [f"{', '.join(alike)}: {state}" for state, alike in names.items()]


def n_of(row: RowJson | None) -> str:
    """Return the number of seeds of a row: `3`, or `5 of 6` if some did not finish."""
    if row is None:
        return "–"
    return str(row["n"]) if row["n"] == row["asked"] else f"{row['n']} of {row['asked']}"


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read a run's folder."""
    name = name or name_of(folder)
    record, problem = _read(folder / "run.json", RunJson)
    if record is None:
        return Run(name, folder, {}, None, problem or "no run.json")
    comparison, problem = _read(folder / "comparison.json", ComparisonJson)
    if comparison is not None and not sealed.is_sealed(comparison):
        wrong = next(unsealed.disagreements(comparison), None)
        problem = wrong and f"comparison.json is damaged (its {wrong} does not match its points)"
    return Run(name, folder, _with_state(record), None if problem else comparison, problem)


def name_of(folder: Path) -> str:
    """Return the name by which a run is typed: its folder's, for a sweep's cell the sweep's name and the number."""
    cell = (folder.parent / "sweep.json").is_file()
    return f"{printed(folder.parent)}/{printed(folder)}" if cell else printed(folder)


def printed(folder: Path) -> str:
    """Return a folder's name as it can be printed: bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(folder.name).decode(errors="replace")


def begun_cells(folder: Path) -> list[CellJson]:
    """Return the cells of a search that have begun, by number; the later ones are not chosen yet."""
    cells: list[CellJson] = []
    for place in folder.glob("*/run.json"):
        if place.parent.name.isdecimal():
            record, problem = _read(place, RunJson)
            record = _with_state(record or RunJson(status="unreadable", reason=problem))
            cells.append({"number": int(place.parent.name), "overrides": record.get("overrides", []),
                          "status": record["status"], "reason": record.get("reason")})  # fmt: skip
    return sorted(cells, key=lambda cell: cell["number"])


def read_sweep(folder: Path) -> tuple[SweepJson, list[Run]]:
    """Read a sweep's sweep.json and one run per cell, cells that have not begun included.

    Raise ValueError if sweep.json is missing or damaged.
    """
    read, problem = _read(folder / "sweep.json", SweepJson)
    if read is None:
        raise ValueError(f"{folder}: {problem or 'no sweep.json'}")
    record: SweepJson = _with_state(read)
    if record.get("searched"):
        known = {cell["number"]: cell for cell in [*begun_cells(folder), *record["cells"]]}
        record["cells"] = [known[number] for number in sorted(known)]
    elif not record["cells"] or len({cell["number"] for cell in record["cells"]}) < len(record["cells"]):
        raise ValueError(f"{folder}: sweep.json is damaged (not every cell has a number)")
    cells = []
    for cell in record["cells"]:
        place = folder / str(cell["number"])
        name = f"{printed(folder)}/{place.name}"
        if (place / "run.json").is_file():
            run, ended = read_run(place, name), {"running": "interrupted"}
        else:
            waiting: Any = {**cell, "created": record.get("created"), "verb": record.get("verb")}
            run, ended = Run(name, place, waiting), {"waiting": "not started"}
        if record["status"] != "running" and run.status in ended:
            run = replace(run, record={**run.record, "status": ended[run.status]})
        cells.append(run)
    return record, cells


def all_runs(outputs: Path) -> list[Run]:
    """Return every run under an outputs folder, newest first; a sweep's cells follow one another.

    A folder without run.json, and a sweep whose sweep.json cannot be read, is listed as a run with a `problem`.
    """
    groups = [[read_run(folder)] for folder in outputs.glob("runs/*/*") if folder.is_dir()]
    groups += [listed(folder) for folder in outputs.glob("sweeps/*/*") if folder.is_dir()]
    groups = [group for group in groups if group]
    groups.sort(key=lambda g: (str(g[0].record.get("created", "")), g[0].name), reverse=True)
    return [run for group in groups for run in group]


def listed(sweep: Path) -> list[Run]:
    """Return a sweep's cells; if sweep.json cannot be read, those that have begun, and the sweep with its problem."""
    try:
        return read_sweep(sweep)[1]
    except ValueError as error:
        begun = [read_run(file.parent) for file in sorted(sweep.glob("*/run.json"))]
        return [*begun, Run(printed(sweep), sweep, {}, None, str(error).removeprefix(f"{sweep}: "))]


def is_sweep(folder: Path) -> bool:
    """Return whether a folder is a sweep's, and its sweep.json can be read."""
    return _read(folder / "sweep.json", SweepJson)[0] is not None


def cells_in(sweep: Path) -> list[Run]:
    """Return a sweep's cells, or if its sweep.json cannot be read, those that have begun."""
    return [run for run in listed(sweep) if run.folder != sweep]


def _read(path: Path, record: type[Record]) -> tuple[Record | None, str | None]:
    """Read a record: (None, None) if there is no file, (None, problem) if it is damaged or cannot be read."""
    try:
        return sealed.read(path, record), None
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"{path.name} cannot be read ({error.strerror or error})"
    except sealed.Newer as error:
        return None, f"{path.name}: {error}"
    except ValueError as error:
        return None, f"{path.name} is damaged ({error})"


def _with_state(record: Any) -> Any:
    """Return the record of a run or a sweep, marked as stopped if its process is gone."""
    named = record.get("process")  # older records lack it
    if record["status"] == "running" and named and process.gone(named):
        record |= {"status": "stopped", "reason": "its process is no longer running; the same command resumes"}
    return record
