"""Accuracy on the classes left out of the transfer set, before and after one bias is corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdrun.evaluation.accuracy import correct
from kdrun.evaluation.missing import best_offset, shifted
from kdrun.results import statistics
from kdrun.results.comparison.classes import class_names
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.lanes import Lane
from kdrun.results.networks import Row, StoredNetwork
from kdrun.results.tables import Sentences, Table, interval, per_cent, written


@dataclass(frozen=True)
class MissingAccuracy:
    """One network's accuracy on the test images of the missing classes and on all, without and with its offset."""

    seed: int
    offset: float
    missing: float
    missing_with: float
    everything: float
    everything_with: float


NUMBERS = ("missing", "missing_with", "everything", "everything_with")


def missing_table(comparison: Comparison) -> Table | None:
    """Return the table of all networks; None if no class was left out, or if validation has no image of them."""
    omitted = _omitted(comparison)
    measured = {
        row: [_measured(m, omitted) for m in row.finished if _measurable(m, omitted)] for row in comparison.rows
    }
    if not omitted or not any(measured[row] for lane in comparison.lanes for row in lane.rows):
        return None
    names = [class_names(comparison)[c] for c in omitted]
    rows = [_cells(comparison, row, points) for row, points in measured.items() if points]
    sentences = [
        _sentence(lane, measured, names) for lane in comparison.lanes if lane.student and measured[lane.student]
    ]
    labels = next(m for lane in comparison.lanes for row in lane.rows for m in row.finished).labels()
    notes = [
        f"missing: the {np.isin(labels, omitted).sum():,} test images of {_and(names)}; the teacher saw such images, "
        "the others did not",
        "offset: the number that, added to the logits of these classes, gets most validation images right, one for "
        "each network, of equally good ones that nearest to 0 (Hinton, Vinyals & Dean 2015, section 3: on test data)",
        "validation holds images of these classes: offset and epoch are chosen with them",
        *(note for lane in comparison.lanes for note in _paired(lane, measured)),
    ]
    columns = ["role", "model", "missing %", "with offset %", "all %", "all, with offset %", "offset", "n"]
    return Table(columns, rows, Sentences(sentences), notes)


def _omitted(comparison: Comparison) -> list[int]:
    """Return the labels of the omitted classes; run.json has labels or names."""
    omitted = (comparison.config.get("transfer") or {}).get("omit_classes") or []
    if not omitted or not any(row.finished for row in comparison.rows):
        return []
    names = class_names(comparison)
    return sorted({c if isinstance(c, int) else names.index(str(c)) for c in omitted})


def _measurable(network: StoredNetwork, omitted: Sequence[int]) -> bool:
    return bool(omitted) and network.keeps("val") and bool(np.isin(network.labels("val"), omitted).any())


def _measured(network: StoredNetwork, omitted: Sequence[int]) -> MissingAccuracy:
    offset = best_offset(network.logits("val"), network.labels("val"), omitted)
    labels = network.labels()
    before, after = (correct(z, labels) for z in (network.logits(), shifted(network.logits(), omitted, offset)))
    own = np.isin(labels, omitted)
    numbers = (float(part.mean()) for part in (before[own], after[own], before, after))
    return MissingAccuracy(network.seed, offset, *numbers)


def _cells(comparison: Comparison, row: Row, points: Sequence[MissingAccuracy]) -> list[str]:
    offsets = statistics.summary([point.offset for point in points])
    numbers = [per_cent(_summary(points, key)) for key in NUMBERS]
    return [comparison.names[row], row.model, *numbers, written(offsets, 2, signed=True), str(len(points))]


def _summary(points: Sequence[MissingAccuracy], key: str) -> statistics.Summary | None:
    return statistics.summary([getattr(point, key) for point in points])


def _sentence(lane: Lane, measured: dict[Row, list[MissingAccuracy]], names: Sequence[str]) -> str:
    """Return in words how often student and baseline are right on the classes that they never saw."""
    assert lane.student is not None
    shares = [per_cent(_summary(measured[lane.student], key)) for key in ("missing", "missing_with")]
    about = f"{lane.name}: " if lane.name else ""
    sentence = (
        f"{about}Never shown {_and(names)}, the {lane.student.label} gets {shares[0]}% of these test images right, and "
        f"{shares[1]}% with one offset chosen on validation"
    )
    if lane.baseline is None or not measured[lane.baseline]:
        return f"{sentence}."
    shares = [per_cent(_summary(measured[lane.baseline], key)) for key in ("missing", "missing_with")]
    return f"{sentence}; the baseline {shares[0]}% and {shares[1]}%."


def _paired(lane: Lane, measured: dict[Row, list[MissingAccuracy]]) -> list[str]:
    """Return a note on student − baseline on the missing classes, with offsets, paired by seed."""
    if lane.student is None or lane.baseline is None:
        return []
    base = {point.seed: point.missing_with for point in measured[lane.baseline]}
    difference = statistics.pair_by_seed({point.seed: point.missing_with for point in measured[lane.student]}, base)
    if difference is None or difference.p is None:
        return []
    about = f"{lane.name}: " if lane.name else ""
    return [
        f"{about}{lane.student.label} − baseline on the missing, with offset, paired by seed: "
        f"{per_cent(difference.mean, signed=True)}, 95% {interval(difference.low, difference.high)}, n = {difference.n}"
    ]


def _and(names: Sequence[str]) -> str:
    *some, last = names
    return f"class{'es' if some else ''} {', '.join(some)}{' and ' if some else ''}{last}"
