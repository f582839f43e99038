"""The comparison: teachers, baselines and students side by side, from the result files of their artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from kdrun.evaluation.chance import better_than_chance, largest_share
from kdrun.evaluation.fidelity import agreement, divergence
from kdrun.records import RunJson
from kdrun.results import statistics
from kdrun.results.comparison.ensemble import teachers_together
from kdrun.results.comparison.lanes import Lane
from kdrun.results.comparison.omitted import Omitted
from kdrun.results.comparison.study import Studied
from kdrun.results.networks import Row, names_of, read_rows, same_images
from kdrun.results.statistics import Paired, Summary
from kdrun.results.tables import Sentences, per_cent

Fidelity = dict[str, dict[int, float]]  # agreement and kl_to_teacher, by seed


class Comparison:
    """Rows, paired statistics and the verdict of one run, whose run.json is `record`.

    The rows are the teachers, their ensemble if there are several, the assistants, and then each lane: the baseline,
    networks distilled in another way, and the student itself. Raise ValueError if there are no artifacts, or if the
    files of one cannot be read.
    """

    def __init__(self, folders: Sequence[Path], record: RunJson) -> None:
        self.record, self.config = record, record.get("config") or {}
        rows = read_rows(folders, record)
        if not rows:
            raise ValueError("there is nothing to compare: no training has finished")
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
        self.omitted = Omitted(self.rows, self.config)

    def lane(self, row: Row) -> Lane | None:
        """Return the lane that a row belongs to; None for teachers and assistants."""
        return next((lane for lane in self.lanes if row in lane.rows), None)

    def _towards(self) -> Row | None:
        """Return the row that the others are compared with: the teacher, or the ensemble of several."""
        if len(self.teachers) < 2:
            return next(iter(self.teachers), None)
        return teachers_together(self.teachers, (self.record.get("ensemble") or {}).get("teachers") or ())

    def _same_test(self, others: Sequence[Row]) -> bool:
        """Return whether the teachers, which may come from other runs, were tested on the same images as `others`."""
        first = [m for row in others for m in row.finished[:1]][:1]
        if self.towards is None or not first or not any(m.tested for m in self.towards.finished):
            return False
        return same_images([self.towards.finished[0], *first])

    def _fidelity(self) -> dict[Row, Fidelity]:
        """Return every row's agreement with its teacher, and its KL divergence from it, on test data by seed."""
        if self.towards is None or not self.same_test:
            return {row: {} for row in self.rows}
        teachers = [(t.fingerprints, t.logits()) for t in self.towards.finished]
        fidelity: dict[Row, Fidelity] = {}
        for row in self.rows:
            points: Fidelity = {"agreement": {}, "kl_to_teacher": {}}
            for network in row.finished if row is not self.towards else ():
                own = [logits for fingerprints, logits in teachers if fingerprints <= set(network.result["teachers"])]
                logits = network.logits()
                taught = own[0] if own else teachers[0][1]  # a baseline has no teacher: take the first
                points["agreement"][network.seed] = agreement(logits, taught)
                points["kl_to_teacher"][network.seed] = divergence(logits, taught)
            fidelity[row] = points
        return fidelity

    def verdict(self) -> Sentences:
        """Return the verdict: sentences on classes left out, on doubts about the teacher, and on each student."""
        verdicts = [(lane.about, lane.verdict()) for lane in self.lanes if lane.student is not None]
        sentences = [f"{about}: {verdict}" if about else verdict for about, verdict in verdicts]
        findings = [sentence for lane in self.lanes if (sentence := self.omitted.sentence(lane))]
        return Sentences([*findings, *self._doubts(), *(sentences or [_alone(row) for row in self.rows])])

    def _doubts(self) -> Iterator[str]:
        """Yield a sentence for each teacher no better than chance, and for each baseline as good as the teacher."""
        for row in self.teachers:
            for network in (m for m in row.finished[:1] if m.tested):
                labels = network.labels()
                if not better_than_chance(network.point("test"), labels):
                    yield (
                        f"The {self.names[row]} is no better than chance: its test accuracy is "
                        f"{per_cent(row.summary('test'))}%, "
                        f"and the largest class has {100 * largest_share(labels):.2f}% of the images."
                    )
        teacher = None if self.towards is None else self.towards.summary("test")
        for lane in self.lanes:
            alone = None if lane.baseline is None else lane.baseline.summary("test")
            if self.towards is None or teacher is None or lane.baseline is None or alone is None or not lane.student:
                continue
            if self.same_test and not lane.towards_itself and teacher.mean <= alone.mean:
                yield (
                    f"The {self.names[self.towards]} ({per_cent(teacher)}%) is not better than the "
                    f"{self.names[lane.baseline]} ({per_cent(alone)}%): there is little to learn from it."
                )

    def points(self, row: Row, key: str) -> dict[int, float]:
        """Return one measure of every network of a row, by seed."""
        if key == "test_nll":
            return {m.seed: m.point("test", "nll") for m in row.finished}
        if key in ("agreement", "kl_to_teacher"):
            return self.fidelity[row].get(key, {})
        return self.studied[row].points(key)

    def measured(self, row: Row, key: str) -> Summary | None:
        """Summarise one measure of a row over its seeds."""
        return statistics.summary(list(self.points(row, key).values()))

    def measured_difference(self, lane: Lane, key: str) -> Paired | None:
        """Return a measure of the student minus that of the baseline, paired by seed."""
        if lane.student is None or lane.baseline is None or lane.student_is_baseline:
            return None
        return statistics.pair_by_seed(self.points(lane.student, key), self.points(lane.baseline, key))


def _alone(row: Row) -> str:
    """Return a row's accuracy in words, for a run with nothing to compare it with."""
    test = row.summary("test")
    right = f"test accuracy {per_cent(test)}%" if test else f"no results, {row.lost()}"
    return f"{row.label} {row.model}: {right}."
