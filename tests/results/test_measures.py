"""What a comparison says beyond accuracy, against scikit-learn, scipy and by hand; columns on request."""

import csv
import json

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from kdrun import config
from kdrun.results import columns
from kdrun.results.comparison import measures
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.measures import MEASURES
from kdrun.results.comparison.measures_tables import BETTER, differences_table, measures_table
from kdrun.results.comparison.table import comparison_table
from kdrun.results.comparison.write import write_comparison
from kdrun.results.evidence import judge
from kdrun.results.statistics import Paired, paired
from tests.results.given import LABELS, artifact, history, noisy, record, run, sweep

SURE = {"teacher": 4.0, "baseline": 1.0, "student": 1.5}
CURVES = {"baseline": [0.2, 0.4, 0.6, 0.7, 0.78, 0.8], "student": [0.5, 0.7, 0.77, 0.79, 0.8, 0.8]}


def made(store, seeds=3, **more):
    """A teacher, and baseline and student for each seed, with curves."""
    folders = [artifact(store, "teacher", z=noisy(4.0, 99), **more)]
    for role in ("baseline", "student"):
        for seed in range(seeds):
            folder = artifact(store, role, seed, z=noisy(SURE[role], seed), **more)
            rows = [f"{e},{value}" for e, value in enumerate(CURVES[role], start=1)]
            history(folder, "\n".join(["epoch,val_accuracy", *rows]) + "\n")
            folders.append(folder)
    return folders


@pytest.fixture
def comparison(tmp_path):
    folders = made(tmp_path)
    return Comparison(folders, record(folders))


def answers(role, seed):
    return noisy(SURE[role], seed).argmax(1)


def test_balanced_accuracy_and_macro_f1_are_means_over_seeds_of_scikit_learns(comparison):
    student = comparison.lanes[0].student
    f1 = [metrics.f1_score(LABELS, answers("student", s), average="macro") for s in range(3)]
    balanced = [metrics.balanced_accuracy_score(LABELS, answers("student", s)) for s in range(3)]
    assert comparison.measured(student, "macro_f1").mean == pytest.approx(np.mean(f1))
    assert comparison.measured(student, "macro_f1").std == pytest.approx(np.std(f1, ddof=1))
    assert comparison.measured(student, "balanced_accuracy").mean == pytest.approx(np.mean(balanced))
    assert comparison.measured(student, "top5_accuracy") is None  # of four classes


def test_convergence_and_swing_come_from_the_validation_curve(comparison):
    (lane,) = comparison.lanes
    assert [comparison.measured(lane.student, f"epochs_to_{s}").mean for s in (90, 95, 99)] == [3, 3, 5]
    assert [comparison.measured(lane.baseline, f"epochs_to_{s}").mean for s in (90, 95, 99)] == [5, 5, 6]
    assert comparison.measured(lane.baseline, "unsteadiness").mean == pytest.approx(np.std([0.78, 0.8], ddof=1))
    assert comparison.measured(comparison.teachers[0], "epochs_to_90") is None  # it has no history


def test_differences_are_paired_by_seed(comparison):
    (lane,) = comparison.lanes
    f1 = [[metrics.f1_score(LABELS, answers(role, s), average="macro") for s in range(3)] for role in SURE]
    d = np.subtract(f1[2], f1[1])
    result = comparison.measured_difference(lane, "macro_f1")
    low, high = stats.t.interval(0.95, 2, loc=d.mean(), scale=stats.sem(d))
    assert (result.mean, result.low, result.high) == pytest.approx((d.mean(), low, high))
    assert comparison.measured_difference(lane, "epochs_to_90").mean == -2


def test_what_a_difference_shows_is_said_in_its_own_direction_and_needs_six_seeds():
    six = paired([0.01, 0.02, 0.03, 0.02, 0.015, 0.025])
    assert (judge(six).cell(*BETTER[False]), judge(six).cell(*BETTER[True])) == ("better", "worse")
    three = paired([0.01, 0.011, 0.012])
    assert judge(three).cell(*BETTER[False]) == "better, indicative"
    assert judge(paired([0.01, -0.02, 0.03])).cell(*BETTER[False]) == "not significant"
    assert judge(Paired(0.01, None, None, None, 1)).cell(*BETTER[False]) == "not tested"


def test_the_tables_say_what_each_number_is(comparison):
    table = measures_table(comparison)
    assert list(table.columns) == ["role", "model", "NLL", "ECE %", "balanced %", "macro F1 %", "agree %", "KL",
                                   "to 90%", "to 95%", "to 99%", "swing %", "n"]  # fmt: skip
    assert "ECE: expected calibration error, 15 bins" in table.notes[1] and "top-5" not in table.notes[1]
    against = differences_table(comparison)
    rows = {row[0]: row for row in against.rows}
    assert rows["to 90%"][1:3] == ["less", "-2.0"] and rows["to 90%"][-1] == "not significant"  # all differences equal
    assert "agree %" not in rows  # following the teacher is neither better nor worse


def test_without_a_baseline_there_is_nothing_to_hold_against(tmp_path):
    folders = made(tmp_path)
    folders = [f for f in folders if "baseline" not in f.name]
    assert differences_table(Comparison(folders, record(folders))) is None


def test_they_are_written_beside_the_comparison_and_into_its_json(tmp_path):
    folders = made(tmp_path / "store")
    write_comparison(tmp_path, Comparison(folders, record(folders)))
    data = json.loads((tmp_path / "comparison.json").read_text())
    student = next(row for row in data["rows"] if row["role"] == "student")
    assert {m.key for m in MEASURES} <= set(student)
    assert student["epochs_to_95"] == {"mean": 3.0, "std": 0.0, "n": 3} and student["top5_accuracy"] is None
    assert data["lanes"][0]["measures"]["epochs_to_90"]["mean"] == -2
    for name in ("measures", "differences", "classes"):
        for kind in ("md", "csv", "tex"):
            assert (tmp_path / f"{name}.{kind}").is_file()
    heading, *rows = csv.reader((tmp_path / "measures.csv").open())
    assert float(rows[2][heading.index("ECE %")]) == pytest.approx(100 * student["ece"]["mean"])


def test_every_column_that_can_be_typed_is_one(tmp_path):
    assert {*columns.MEASURED, columns.COST} == set(config.COLUMNS)
    folders = made(tmp_path)
    words = list(columns.MEASURED)
    known = record(folders, config={"columns": words})
    table = comparison_table(Comparison(folders, known))
    assert list(table.columns[-len(words) :]) == [measures.BY_KEY[key].heading for key in columns.MEASURED.values()]
    assert config.unknown_columns("columns", words) == []
    assert "there is no column ecc. Did you mean ece?" in config.unknown_columns("columns", ["ecc"])[0]


def test_a_sweep_and_a_report_take_columns_too(tmp_path):
    from kdrun.results.collect import collected, write_report
    from kdrun.results.sweep.sweep import every_lane
    from kdrun.results.sweep.table import sweep_table

    out = tmp_path / "outputs"
    folders = made(out / "store")
    folder = sweep(out, [(["T=1"], folders), (["T=2"], ("failed", "boom"))], config={"columns": ["to90"]})
    table = sweep_table(every_lane(folder))
    assert list(table.columns[-2:]) == ["to 90%", "status"]
    assert [row[-2] for row in table.rows[-2:]] == ["3.0 ± 0.0", "–"]
    run(out, "2026-01-02_03-04-05-aaaaaa", folders)
    report = write_report(collected([], out), tmp_path / "report", ["to90"])
    assert sorted(row[-2] for row in report.rows) == ["3.0 ± 0.0", "3.0 ± 0.0", "–"]


def test_what_is_left_of_lost_seeds_indicates_no_more():
    result = paired([0.01] * 5 + [0.011])
    assert judge(result).cell(*BETTER[False]) == "better"
    assert judge(result, "1 diverged").cell(*BETTER[False]) == "better, indicative"
