"""What a comparison says beyond accuracy: a table of all networks, and one of student against baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdrun.results import statistics
from kdrun.results.comparison.lanes import Lane
from kdrun.results.members import Row
from kdrun.results.statistics import Evidence, Judgement, Paired, Summary, judge
from kdrun.results.tables import Exact, Table, p_cell, per_cent

if TYPE_CHECKING:
    from kdrun.results.comparison.comparison import Comparison


@dataclass(frozen=True)
class Measure:
    """One number of a network: how it is headed and written, and whether less of it is better (None: neither)."""

    key: str
    heading: str
    share: bool  # in [0, 1], written as per cent
    less: bool | None
    about: str = ""


MEASURES = [
    Measure("test_nll", "NLL", False, True, "NLL: mean negative log-likelihood in nats"),
    Measure("ece", "ECE %", True, True, "ECE: expected calibration error, 15 bins of equal width"),
    Measure("balanced_accuracy", "balanced %", True, False, "balanced: mean accuracy over classes"),
    Measure("macro_f1", "macro F1 %", True, False),
    Measure("top5_accuracy", "top-5 %", True, False),
    Measure("agreement", "agree %", True, None, "agree: chooses the teacher's class, right or wrong"),
    Measure("kl_to_teacher", "KL", False, None, "KL: KL(teacher ‖ network) at T=1 in nats; fidelity is not accuracy"),
    Measure("epochs_to_90", "to 90%", False, True),
    Measure("epochs_to_95", "to 95%", False, True, "to 90, 95, 99%: epochs to that share of the final validation "
            "accuracy"),
    Measure("epochs_to_99", "to 99%", False, True),
    Measure("unsteadiness", "swing %", True, True, "swing: standard deviation of the last third of the validation "
            "curve, in points"),
]  # fmt: skip
BY_KEY = {measure.key: measure for measure in MEASURES}


def measures_table(comparison: Comparison) -> Table:
    """Give the table of all networks; columns in which nobody has a number are left out."""
    rows = [
        [comparison.names[row], row.model, *(written(m, summary(comparison, row, m.key)) for m in MEASURES),
         row.count()]
        for row in comparison.rows
    ]  # fmt: skip
    columns = ["role", "model", *(m.heading for m in MEASURES), "n"]
    notes = ["on test data at the selected epoch, mean ± sample standard deviation over n seeds"]
    table = Table(columns, rows, "Beyond accuracy", notes).without_empty(*(m.heading for m in MEASURES))
    told = [m.about for m in MEASURES if m.about and m.heading in table.columns]
    return Table(table.columns, table.rows, table.title, [*notes, "; ".join(told)])


def difference(comparison: Comparison, lane: Lane, key: str) -> Paired | None:
    """Give a number of the student minus that of the baseline, paired by seed."""
    if lane.student is None or lane.baseline is None or lane.student_is_baseline:
        return None
    own, base = (points(comparison, row, key) for row in (lane.student, lane.baseline))
    return statistics.pair_by_seed(own, base)


def differences_table(comparison: Comparison) -> Table | None:
    """Give every student against its baseline in every number; None where there is no pair."""
    rows = []
    for lane, measure in ((lane, measure) for lane in comparison.lanes for measure in MEASURES):
        found = difference(comparison, lane, measure.key)
        if found is None or measure.less is None:  # fidelity is neither better nor worse
            continue
        rows.append([lane.about or "–", measure.heading, "less" if measure.less else "more",
                     _signed(measure, found.mean), _interval(measure, found),
                     p_cell(found.p), str(found.n), shown(judge(found, lane.lost), measure.less)])  # fmt: skip
    if not rows:
        return None
    notes = [
        "Δ: student − baseline, paired by seed, with its 95% t-interval and exact sign-flip p",
        "no p is corrected for the number of lines: each answers its own question, and a lone small one proves little",
    ]
    columns = ["student", "measure", "better", "Δ", "95%", "p", "n", "the student is"]
    return Table(columns, rows, "Student against baseline, beyond accuracy", notes).without_empty("student")


def shown(judged: Judgement, less: bool) -> str:
    """Return what a difference shows in a word or two: `better`, `worse, indicative`, `not shown`."""
    word = "worse" if judged.positive == less else "better"
    return {Evidence.SHOWN: word, Evidence.INDICATIVE: f"{word}, indicative"}.get(judged.evidence, "not shown")


def points(comparison: Comparison, row: Row, key: str) -> dict[int, float]:
    """Give one number of every network of a row by its seed."""
    if key == "test_nll":
        return {m.seed: m.point("test", "nll") for m in row.finished}
    if key in ("agreement", "kl_to_teacher"):
        return comparison.fidelity[row].get(key, {})
    return comparison.studied[row].points(key)


def summary(comparison: Comparison, row: Row, key: str) -> Summary | None:
    """Summarise one number of a row over its seeds."""
    return statistics.summary(list(points(comparison, row, key).values()))


def written(measure: Measure, value: Summary | None) -> str:
    """Write a number as it stands in tables."""
    if value is None or measure.share:
        return per_cent(value)
    digits = 1 if measure.key.startswith("epochs") else 4
    parts = {"": value.mean} | ({} if value.std is None else {"std": value.std})
    if value.n == 1 and digits == 1:
        return Exact(f"{value.mean:.0f}", parts)
    return Exact(f"{value.mean:.{digits}f}" + ("" if value.std is None else f" ± {value.std:.{digits}f}"), parts)


def _signed(measure: Measure, value: float) -> str:
    if measure.share:
        return per_cent(value, signed=True)
    return Exact(f"{value:+.{1 if measure.key.startswith('epochs') else 4}f}", {"": value})


def _interval(measure: Measure, found: Paired) -> str:
    if found.low is None or found.high is None:
        return "–"
    low, high = (_signed(measure, value) for value in (found.low, found.high))
    unit = 100 if measure.share else 1
    return Exact(f"[{low}, {high}]", {"low": unit * found.low, "high": unit * found.high})


def measure_tables(comparison: Comparison) -> Sequence[Table]:
    """Give all tables of this kind, in the order in which they are read."""
    against = differences_table(comparison)
    return [measures_table(comparison), *([against] if against else [])]
