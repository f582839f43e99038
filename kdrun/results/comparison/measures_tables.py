"""The tables of measures beyond accuracy: all networks, and student against baseline."""

from __future__ import annotations

from collections.abc import Sequence

from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.measures import MEASURES, Measure
from kdrun.results.evidence import judge
from kdrun.results.statistics import Paired
from kdrun.results.tables import Exact, Table, p_cell

BETTER = {True: ("worse", "better"), False: ("better", "worse")}  # less is better? -> the words for more and for less


def measures_table(comparison: Comparison) -> Table:
    """Return the table of all networks, without the columns that are empty."""
    rows = [
        [comparison.names[row], row.model, *(m.written(comparison.measured(row, m.key)) for m in MEASURES),
         row.count()]
        for row in comparison.rows
    ]  # fmt: skip
    columns = ["role", "model", *(m.heading for m in MEASURES), "n"]
    notes = ["on test data at the selected epoch, mean ± sample standard deviation over n seeds"]
    table = Table(columns, rows, "Beyond accuracy", notes).without_empty(*(m.heading for m in MEASURES))
    meanings = [m.about for m in MEASURES if m.about and m.heading in table.columns]
    return Table(table.columns, table.rows, table.title, [*notes, "; ".join(meanings)])


def differences_table(comparison: Comparison) -> Table | None:
    """Return the table of every student against its baseline in every measure; None if there is no pair."""
    rows = []
    for lane, measure in ((lane, measure) for lane in comparison.lanes for measure in MEASURES):
        difference = comparison.measured_difference(lane, measure.key)
        if difference is None or measure.less is None:  # fidelity is neither better nor worse
            continue
        rows.append([lane.about or "–", measure.heading, "less" if measure.less else "more",
                     measure.written(difference.mean, signed=True), _interval(measure, difference),
                     p_cell(difference.p), str(difference.n),
                     judge(difference, lane.lost).cell(*BETTER[measure.less])])  # fmt: skip
    if not rows:
        return None
    notes = [
        "Δ: student − baseline, paired by seed, with its 95% t-interval and exact sign-flip p",
        "no p is corrected for the number of lines: with this many comparisons a single small p-value is weak evidence",
    ]
    columns = ["student", "measure", "better", "Δ", "95%", "p", "n", "evidence"]
    return Table(columns, rows, "Student against baseline, beyond accuracy", notes).without_empty("student")


def _interval(measure: Measure, difference: Paired) -> str:
    if difference.low is None or difference.high is None:
        return "–"
    low, high = (measure.written(value, signed=True) for value in (difference.low, difference.high))
    unit = 100 if measure.share else 1
    return Exact(f"[{low}, {high}]", {"low": unit * difference.low, "high": unit * difference.high})


def measure_tables(comparison: Comparison) -> Sequence[Table]:
    """Return both tables, or the first if there is no pair."""
    against = differences_table(comparison)
    return [measures_table(comparison), *([against] if against else [])]
