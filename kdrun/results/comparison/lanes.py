"""One student of a comparison with its baseline and the networks that were distilled in other ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kdrun.evaluation.accuracy import correct
from kdrun.records import LaneJson
from kdrun.results import evidence, statistics
from kdrun.results.comparison.ensemble import generations_together
from kdrun.results.networks import Row, StoredNetwork, lost
from kdrun.results.statistics import Bootstrapped, Paired, SingleRun, as_json
from kdrun.results.tables import per_cent

ORDER = ("baseline", "direct", "generation", "student")


class Lane:
    """The rows of one student, paired by seed; each of several students has a lane, called `name`.

    `towards` is the row to which the gap is measured: the teacher or the ensemble of several teachers; None if it was
    not tested on the same images.
    """

    def __init__(self, name: str, rows: Sequence[Row], towards: Row | None = None) -> None:
        self.name, self.towards = name, towards
        self.rows = sorted(rows, key=lambda row: ORDER.index(row.role))
        self.baseline, self.direct, self.student = (
            next((row for row in self.rows if row.role == role), None) for role in ("baseline", "direct", "student")
        )
        self.generations = [row for row in self.rows if row.role == "generation"]
        if self.generations and self.student is not None:
            self.rows.append(generations_together([*self.generations, self.student]))
        self.pairs = _pairs(self.baseline, self.student)
        self.paired = self.difference(self.student)
        self.way = self._way()
        self.single = self._single()
        self.gap = self.gap_closed(self.student)

    @property
    def about(self) -> str:
        """The name that a sentence about this student begins with; empty for a single student labelled `student`."""
        if self.student is None or self.name or self.student.label == self.student.role:
            return self.name
        return self.student.label

    @property
    def lost(self) -> str:
        """The number of the pair's networks that did not finish, by status: `1 diverged`; empty if all finished."""
        return lost([m for row in (self.baseline, self.student) if row is not None for m in row.networks])

    @property
    def student_is_baseline(self) -> bool:
        """Whether student and baseline are the same trainings, as with alpha=0."""
        return bool(self.student and self.baseline and self.baseline.fingerprints == self.student.fingerprints)

    @property
    def beside(self) -> list[Row]:
        """The other rows that are paired with the baseline."""
        return [row for row in self.rows if self.baseline is not None and row not in (self.baseline, self.student)]

    @property
    def towards_itself(self) -> bool:
        """Whether the teacher is the baseline's network, as in born-again networks: the gap between them is chance."""
        return bool(self.generations and self.towards and self.baseline and self.towards.model == self.baseline.model)

    def difference(self, row: Row | None, to: Row | None = None) -> Paired | None:
        """Return the accuracy of a row minus that of the baseline, or of another row, paired by seed.

        No p-value if both rows are the same trainings: there is nothing to test.
        """
        other = to or self.baseline
        paired = statistics.pair_by_seed(_tests(row), _tests(other))
        same = row is not None and other is not None and row.fingerprints == other.fingerprints
        return replace(paired, p=None) if same and paired is not None else paired

    def gap_closed(self, row: Row | None) -> float | None:
        """Return the share of the teacher–baseline gap that a row closes, over the pairs.

        None if there is no gap, or if it is not significant on these test images: a share of a gap near 0 is
        meaningless, and may be 720%.
        """
        pairs = _pairs(self.baseline, row)
        teacher = None if self.towards is None else self.towards.summary("test")
        if not pairs or teacher is None or self.way is None or self.way.low <= 0:
            return None
        own = float(np.mean([m.point("test") for _, m in pairs]))
        baseline = float(np.mean([b.point("test") for b, _ in pairs]))
        return statistics.gap_closed(own, baseline, teacher.mean)

    def _way(self) -> Bootstrapped | None:
        """Return teacher − baseline, each a mean over its networks, with a paired bootstrap over the test images."""
        if self.towards is None or self.baseline is None or self.towards_itself:
            return None
        if not self.towards.finished or not self.baseline.finished:
            return None
        teacher, baseline = (
            np.mean([correct(m.logits(), m.labels()) for m in row.finished], axis=0)
            for row in (self.towards, self.baseline)
        )
        return statistics.bootstrapped(teacher - baseline)

    def _single(self) -> SingleRun | None:
        if len(self.pairs) != 1:
            return None
        baseline, student = self.pairs[0]
        labels = student.labels()
        return statistics.single_run(correct(baseline.logits(), labels), correct(student.logits(), labels))

    def verdict(self) -> str:
        """Return the verdict on this lane's student, which must exist."""
        assert self.student is not None
        test, label = self.student.summary("test"), self.student.label
        right = f"{per_cent(test)}% of the test images right" if test else f"no numbers, {self.student.lost()}"
        if self.baseline is None:
            return f"{evidence.UNTESTED}: without labels there is no baseline to compare with; {label}: {right}."
        if self.student_is_baseline:
            return f"{evidence.UNTESTED}: the {label} is the baseline, since the teacher's weight is 0; both: {right}."
        needed = [m for row in (self.baseline, *self.generations, self.student) for m in row.networks]
        return evidence.verdict(
            self.paired,
            gap=self.gap,
            asked=len({m.seed for m in needed}),
            towards="teacher" if self.towards is None else self.towards.role,
            lost=lost(needed),
            single=self.single,
        )

    def data(self) -> LaneJson:
        """Return the lane's statistics as JSON."""
        return {
            "name": self.name,
            "paired": as_json(self.paired),
            "single_run": as_json(self.single),
            "gap_closed": self.gap,
            "teacher_gap": as_json(self.way),
            "against_direct": as_json(self.difference(self.student, self.direct) if self.direct else None),
            "verdict": "" if self.student is None else self.verdict(),
        }


def _tests(row: Row | None) -> dict[int, float]:
    """Return a row's test accuracy by seed."""
    return {} if row is None else {m.seed: m.point("test") for m in row.finished}


def _pairs(first: Row | None, second: Row | None) -> list[tuple[StoredNetwork, StoredNetwork]]:
    """Return the pairs of finished networks of two rows that have the same seed."""
    if first is None or second is None:
        return []
    known = {m.seed: m for m in first.finished}
    return [(known[m.seed], m) for m in second.finished if m.seed in known]
