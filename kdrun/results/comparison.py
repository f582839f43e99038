"""The comparison: teacher, baseline and student side by side, from the result files of their artifacts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdrun.evaluation.accuracy import correct
from kdrun.evaluation.fidelity import agreement, divergence
from kdrun.results import statistics
from kdrun.results.comparison_table import comparison_table
from kdrun.results.members import Member, Row, lost
from kdrun.results.statistics import Paired, SingleRun, Summary
from kdrun.results.tables import per_cent
from kdrun.store import write_atomic

ORDER = ("teacher", "baseline", "student")


class Comparison:
    """Rows, paired statistics and the verdict of one run, whose run.json is `record`.

    Raises ValueError where there are no artifacts, or where one's files cannot be read.
    """

    def __init__(self, folders: Sequence[Path], record: Mapping[str, Any]) -> None:
        self.record = record
        members = [Member.read(folder) for folder in folders]
        if not members:
            raise ValueError("there is nothing to compare: no training was finished")
        # a run may use an artifact in another role than it was trained in: with alpha=0 the student is the baseline
        roles = [str(used["role"]) for used in record.get("artifacts") or (m.result for m in members)]
        groups: dict[tuple[str, str], list[Member]] = {}
        for role, member in zip(roles, members, strict=True):
            groups.setdefault((role, str(member.result["model"])), []).append(member)
        rows = [Row(role, model, found) for (role, model), found in groups.items()]
        self.rows = sorted(rows, key=lambda row: ORDER.index(row.role))
        self.teacher, self.baseline, self.student = (
            next((row for row in self.rows if row.role == role), None) for role in ORDER
        )
        self.pairs = self._pairs()
        self.same_test = self._same_test()
        self.paired: Paired | None = statistics.paired([s.point("test") - b.point("test") for b, s in self.pairs])
        self.single = self._single()
        self.gap = self._gap()
        self.fidelity = {row.role: self._fidelity(row) for row in self.rows}

    @property
    def student_is_baseline(self) -> bool:
        """Whether both are the same trainings, as with alpha=0."""
        if self.student is None or self.baseline is None:
            return False
        return self.baseline.fingerprints == self.student.fingerprints

    def _pairs(self) -> list[tuple[Member, Member]]:
        """Pair baseline and student by seed."""
        if self.baseline is None or self.student is None:
            return []
        alone = {m.seed: m for m in self.baseline.finished}
        return [(alone[s.seed], s) for s in self.student.finished if s.seed in alone]

    def _same_test(self) -> bool:
        """Say whether the teacher, which may come from another run, was measured on the others' test images."""
        others = [m for row in self.rows if row is not self.teacher for m in row.finished[:1]]
        if self.teacher is None or not self.teacher.finished or not others:
            return False
        teacher = self.teacher.finished[0]
        same_images = all(teacher.result.get(key) == others[0].result.get(key) for key in ("dataset", "data"))
        return same_images and np.array_equal(teacher.labels(), others[0].labels())

    def _single(self) -> SingleRun | None:
        if len(self.pairs) != 1:
            return None
        baseline, student = self.pairs[0]
        labels = student.labels()
        return statistics.single_run(correct(baseline.logits(), labels), correct(student.logits(), labels))

    def _gap(self) -> float | None:
        """Give the share of the teacher–baseline gap closed, over the pairs."""
        teacher = self.teacher.summary("test") if self.teacher else None
        if not self.pairs or teacher is None or not self.same_test:
            return None
        student = float(np.mean([s.point("test") for _, s in self.pairs]))
        baseline = float(np.mean([b.point("test") for b, _ in self.pairs]))
        return statistics.gap_closed(student, baseline, teacher.mean)

    def _fidelity(self, row: Row) -> tuple[Summary | None, Summary | None]:
        """Give agreement with the teacher and KL to it on test data, over a row's seeds."""
        if self.teacher is None or row is self.teacher or not self.same_test:
            return None, None
        teachers = {str(t.result["fingerprint"]): t.logits() for t in self.teacher.finished}
        points = []
        for member in row.finished:
            own = [t for t in member.result["teachers"] if t in teachers]  # a baseline has none: the first will do
            logits, taught = member.logits(), teachers[own[0] if own else next(iter(teachers))]
            points.append((agreement(logits, taught), divergence(logits, taught)))
        return statistics.summary([a for a, _ in points]), statistics.summary([kl for _, kl in points])

    def verdict(self) -> str:
        """Say in words what this comparison shows."""
        about = self.student or self.rows[0]
        test = about.summary("test")
        right = f"{per_cent(test)}% of the test images right" if test else f"no numbers, {about.lost()}"
        if self.student is None:
            return f"{about.role} {about.model}: {right}."
        if self.baseline is None:
            return f"Not shown: without labels there is no baseline to compare with; student: {right}."
        if self.student_is_baseline:
            return f"Not shown: the student is the baseline, since the teacher weighs nothing; both: {right}."
        return statistics.verdict(
            self.paired,
            gap=self.gap,
            asked=len(self.student.members),
            lost=lost([*self.baseline.members, *self.student.members]),
            single=self.single,
        )

    def data(self) -> dict[str, Any]:
        """Give everything as JSON: every point of the selected and of the last epoch, and how it came about."""
        return {
            "kind": "comparison",
            "verdict": self.verdict(),
            "formula": self.record.get("formula"),
            "rows": [self._row_data(row) for row in self.rows],
            "paired": None if self.paired is None else vars(self.paired),
            "single_run": None if self.single is None else vars(self.single),
            "gap_closed": self.gap,
            **{key: self.record.get(key) for key in ("verb", "command", "created", "overrides", "choices")},
        }

    def _row_data(self, row: Row) -> dict[str, Any]:
        agreed, kl = self.fidelity[row.role]
        numbers = {
            **{f"{part}_accuracy": row.summary(part) for part in ("train", "val", "test")},
            **{f"{part}_nll": row.summary(part, "nll") for part in ("train", "val", "test")},
            **{f"last_{part}_accuracy": row.summary(part, epoch="last") for part in ("train", "val", "test")},
            "agreement": agreed,
            "kl_to_teacher": kl,
        }
        return {
            "role": row.role,
            "model": row.model,
            "dataset": row.members[0].result["dataset"],
            "n": len(row.finished),
            "asked": len(row.members),
            **{name: None if value is None else vars(value) for name, value in numbers.items()},
            "points": [m.data() for m in row.members],
        }


def write_comparison(folder: Path, artifacts: Sequence[Path], record: Mapping[str, Any]) -> str:
    """Write comparison.{md,csv,json,tex} into a run's folder and give the text for the terminal.

    `record` is the run's run.json. Raises ValueError where an artifact's files cannot be read.
    """
    comparison = Comparison(artifacts, record)
    table = comparison_table(comparison)
    write_atomic(folder / "comparison.md", table.to_markdown().encode())
    write_atomic(folder / "comparison.csv", table.to_csv().encode())
    write_atomic(folder / "comparison.tex", table.to_latex().encode())
    whole = finite({**comparison.data(), "table": table.to_json()})
    write_atomic(folder / "comparison.json", (json.dumps(whole, indent=2, allow_nan=False) + "\n").encode())
    return table.to_text()


def finite(value: Any) -> Any:
    """Replace what JSON lacks: NaN and infinities become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(v) for key, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value
