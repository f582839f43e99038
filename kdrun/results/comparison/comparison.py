"""The comparison: teachers, baselines and students side by side, from the result files of their artifacts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdrun.evaluation.fidelity import agreement, divergence
from kdrun.results.comparison import measures
from kdrun.results.comparison.classes import class_table
from kdrun.results.comparison.doubts import doubts
from kdrun.results.comparison.ensemble import teachers_together
from kdrun.results.comparison.lanes import Lane
from kdrun.results.comparison.measures import MEASURES, measure_tables
from kdrun.results.comparison.missing import missing_table
from kdrun.results.comparison.reported import reported
from kdrun.results.comparison.study import Studied
from kdrun.results.comparison.table import comparison_table
from kdrun.results.members import Row, names_of, read_rows, same_images
from kdrun.results.tables import Sentences, per_cent, write_tables
from kdrun.store import write_atomic

Fidelity = dict[str, dict[int, float]]  # agreement and kl_to_teacher, by seed


class Comparison:
    """Rows, paired statistics and the verdict of one run, whose run.json is `record`.

    The rows are the teachers, their ensemble where there are several, the assistants, and then of each student,
    in its lane, the baseline, what was distilled otherwise, and the student itself. Raises ValueError where there
    are no artifacts, or where one's files cannot be read.
    """

    def __init__(self, folders: Sequence[Path], record: Mapping[str, Any]) -> None:
        self.record = record
        rows = read_rows(folders, record)
        if not rows:
            raise ValueError("there is nothing to compare: no training was finished")
        self.teachers = [row for row in rows if row.role == "teacher"]
        self.assistants = [row for row in rows if row.role == "assistant"]
        small = [row for row in rows if row not in (*self.teachers, *self.assistants)]
        self.towards = self._towards()
        self.same_test = self._same_test([*self.assistants, *small])
        self.lanes = [
            Lane(name, [row for row in small if row.lane == name], self.towards if self.same_test else None)
            for name in dict.fromkeys(row.lane for row in small)
        ]
        together = [self.towards] if self.towards is not None and self.towards.of else []
        self.rows = [*self.teachers, *together, *self.assistants, *(row for lane in self.lanes for row in lane.rows)]
        self.names = names_of(self.rows)
        self.studied = {row: Studied.of(row) for row in self.rows}
        self.fidelity = self._fidelity()
        self.reported = reported(self)

    def lane(self, row: Row) -> Lane | None:
        """Give the lane that a row belongs to; teachers and assistants belong to none."""
        return next((lane for lane in self.lanes if row in lane.rows), None)

    def _towards(self) -> Row | None:
        """Give what the others are held against: the teacher, or the ensemble of several."""
        if len(self.teachers) < 2:
            return next(iter(self.teachers), None)
        return teachers_together(self.teachers, (self.record.get("ensemble") or {}).get("teachers") or ())

    def _same_test(self, others: Sequence[Row]) -> bool:
        """Say whether the teachers, which may come from other runs, were measured on the others' test images."""
        first = [m for row in others for m in row.finished[:1]][:1]
        if self.towards is None or not self.towards.finished or not first:
            return False
        return same_images([self.towards.finished[0], *first])

    def _fidelity(self) -> dict[Row, Fidelity]:
        """Give every row's agreement with the teacher and KL to it on test data, by seed."""
        if self.towards is None or not self.same_test:
            return {row: {} for row in self.rows}
        teachers = [(t.fingerprints, t.logits()) for t in self.towards.finished]
        found: dict[Row, Fidelity] = {}
        for row in self.rows:
            points: Fidelity = {"agreement": {}, "kl_to_teacher": {}}
            for member in row.finished if row is not self.towards else ():
                own = [logits for heard, logits in teachers if heard <= set(member.result["teachers"])]
                logits, taught = (
                    member.logits(),
                    (own or [teachers[0][1]])[0],
                )  # a baseline heard none: the first will do
                points["agreement"][member.seed] = agreement(logits, taught)
                points["kl_to_teacher"][member.seed] = divergence(logits, taught)
            found[row] = points
        return found

    def verdict(self) -> Sentences:
        """Return what speaks against the teacher, then what this shows, a sentence for each student."""
        told = [(lane.about, lane.verdict()) for lane in self.lanes if lane.student is not None]
        said = [f"{about}: {verdict}" if about else verdict for about, verdict in told]
        return Sentences([*doubts(self), *(said or [_alone(row) for row in self.rows])])

    def data(self) -> dict[str, Any]:
        """Give everything as JSON: every point of the selected and of the last epoch, and how it came about.

        What stands beside `lanes` is the first lane's.
        """
        lanes = [
            lane.data() | {"measures": self._measured_differences(lane)}
            for lane in self.lanes
            if lane.student is not None
        ]
        first = lanes[0] if lanes else {}
        return {
            "kind": "comparison",
            "verdict": self.verdict(),
            "formula": self.record.get("formula"),
            "rows": [self._row_data(row) for row in self.rows],
            **{key: first.get(key) for key in ("paired", "single_run", "gap_closed")},
            "lanes": lanes,
            **{key: self.record.get(key) for key in ("verb", "command", "created", "overrides", "choices")},
        }

    def _row_data(self, row: Row) -> dict[str, Any]:
        lane = self.lane(row)
        numbers = {
            **{f"{part}_accuracy": row.summary(part) for part in ("train", "val", "test")},
            **{f"{part}_nll": row.summary(part, "nll") for part in ("train", "val", "test")},
            **{f"last_{part}_accuracy": row.summary(part, epoch="last") for part in ("train", "val", "test")},
            **{m.key: measures.summary(self, row, m.key) for m in MEASURES},
            "paired": lane.difference(row) if lane and row is not lane.baseline else None,
        }
        return {
            "role": row.role,
            "label": row.label,
            "lane": row.lane,
            "name": self.names[row],
            "ensemble_of": row.of or None,
            "model": row.model,
            "dataset": row.members[0].result["dataset"],
            "n": len(row.finished),
            "asked": len(row.members),
            **{name: None if value is None else vars(value) for name, value in numbers.items()},
            "gap_closed": lane.gap_closed(row) if lane and row is not lane.baseline else None,
            "reported": [vars(one) for one in self.reported.get(row, ())],
            "points": [m.data() for m in row.members],
        }

    def _measured_differences(self, lane: Lane) -> dict[str, Any]:
        """Give student − baseline in every measure, paired by seed."""
        found = {m.key: measures.difference(self, lane, m.key) for m in MEASURES}
        return {key: None if paired is None else vars(paired) for key, paired in found.items()}


def _alone(row: Row) -> str:
    """Say of a row what can be said without another."""
    test = row.summary("test")
    right = f"{per_cent(test)}% of the test images right" if test else f"no numbers, {row.lost()}"
    return f"{row.label} {row.model}: {right}."


def write_comparison(folder: Path, comparison: Comparison) -> str:
    """Write a run's tables into its folder and give the text for the terminal.

    They are comparison.{md,csv,json,tex}, and beside the accuracies measures.* with differences.*, classes.*, and where
    classes were left out of the transfer set missing.*, which is shown too.
    """
    table = comparison_table(comparison)
    write_tables(folder, "comparison", table)
    beyond = zip(("measures", "differences"), measure_tables(comparison), strict=False)
    missing = missing_table(comparison)
    for name, other in (*beyond, ("classes", class_table(comparison)), ("missing", missing)):
        if other is not None:
            write_tables(folder, name, other)
    whole = finite({**comparison.data(), "table": table.to_json()})
    write_atomic(folder / "comparison.json", (json.dumps(whole, indent=2, allow_nan=False) + "\n").encode())
    return table.to_text() if missing is None else f"{table.to_text()}\n\n{missing.to_text()}"


def finite(value: Any) -> Any:
    """Replace what JSON lacks: NaN and infinities become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(v) for key, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value
