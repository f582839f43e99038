"""The table of accuracy on the classes left out of the transfer set, before and after one bias is corrected."""

from __future__ import annotations

import numpy as np

from kdrun.results import statistics
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.lanes import Lane
from kdrun.results.comparison.omitted import Omitted
from kdrun.results.networks import Row
from kdrun.results.tables import Table, interval, per_cent, written

NUMBERS = ("missing", "missing_with", "everything", "everything_with")


def missing_table(comparison: Comparison) -> Table | None:
    """Return the table of all networks; None if no class was left out, or if validation has no image of them."""
    omitted = comparison.omitted
    if not any(omitted.measured[row] for lane in comparison.lanes for row in lane.rows):
        return None
    rows = [_cells(comparison, row) for row in comparison.rows if omitted.measured[row]]
    labels = next(m for lane in comparison.lanes for row in lane.rows for m in row.finished).labels()
    notes = [
        f"missing: the {np.isin(labels, omitted.classes).sum():,} test images of {omitted.named}; the teacher saw such "
        "images, the others did not",
        "offset: the number added to the logits of these classes that maximises validation accuracy, one for "
        "each network; of equally good ones, the one nearest to 0 (Hinton, Vinyals & Dean 2015, section 3: on test "
        "data)",
        "validation contains images of these classes: offset and epoch are chosen with them",
        *(note for lane in comparison.lanes for note in _paired(lane, omitted)),
    ]
    columns = ["role", "model", "missing %", "with offset %", "all %", "all, with offset %", "offset", "n"]
    return Table(columns, rows, f"Test images of {omitted.named}, left out of the transfer set", notes)


def _cells(comparison: Comparison, row: Row) -> list[str]:
    omitted = comparison.omitted
    numbers = [per_cent(omitted.summary(row, key)) for key in NUMBERS]
    offset = written(omitted.summary(row, "offset"), 2, signed=True)
    return [comparison.names[row], row.model, *numbers, offset, str(len(omitted.measured[row]))]


def _paired(lane: Lane, omitted: Omitted) -> list[str]:
    """Return a note on student − baseline on the missing classes, with offsets, paired by seed."""
    if lane.student is None or lane.baseline is None:
        return []
    own, base = (
        {point.seed: point.missing_with for point in omitted.measured[row]} for row in (lane.student, lane.baseline)
    )
    difference = statistics.pair_by_seed(own, base)
    if difference is None or difference.p is None:
        return []
    about = f"{lane.name}: " if lane.name else ""
    return [
        f"{about}{lane.student.label} − baseline on the missing, with offset, paired by seed: "
        f"{per_cent(difference.mean, signed=True)}, 95% {interval(difference.low, difference.high)}, n = {difference.n}"
    ]
