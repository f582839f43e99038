"""Several students or peers in one comparison, each held against its own baseline; numbers by hand."""

import pytest
from scipy import stats

from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.write import write_comparison
from tests.results.given import artifact, column, notes_of, record, seeds_of, written


def two_students(store, second=None, labels=("student", "student"), teacher=True):
    """Return two lanes: a gain of 2, 3 and 4 points in the first, of nothing in the second."""
    first = [*seeds_of(store, "baseline", [80, 81, 82]), *seeds_of(store, "student", [82, 84, 86])]
    other = second or [
        *seeds_of(store, "baseline", [70, 71, 72], model="tiny"),
        *seeds_of(store, "student", [71, 71, 71], model="tiny"),
    ]
    folders = [artifact(store, "teacher", right=95)] * teacher + first + other
    n, m = len(first) // 2, len(other) // 2
    cast = [("teacher", "teacher", "")] * teacher
    cast += [("baseline", "baseline", "small")] * n + [("student", labels[0], "small")] * n
    cast += [("baseline", "baseline", "tiny")] * m + [("student", labels[1], "tiny")] * m
    return folders, record(folders, cast=cast)


def test_each_is_paired_with_its_own_baseline(tmp_path):
    comparison = Comparison(*two_students(tmp_path))
    assert [lane.name for lane in comparison.lanes] == ["small", "tiny"]
    first, second = (lane.paired for lane in comparison.lanes)
    test = stats.ttest_rel([82, 84, 86], [80, 81, 82]).confidence_interval()
    assert (first.mean, first.low, first.high) == pytest.approx((0.03, test.low / 100, test.high / 100))
    assert (second.mean, second.p) == (pytest.approx(0), 1.0)
    assert [lane.gap for lane in comparison.lanes] == [pytest.approx(3 / 14), 0.0]
    assert column(comparison, "role") == ["teacher", "baseline", "student", "baseline", "student"]
    assert column(comparison, "Δ base") == ["–", "–", "+3.00", "–", "+0.00"]
    assert column(comparison, "gap %") == ["–", "–", "21", "–", "0"]


def test_each_has_a_verdict_that_begins_a_line_with_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    folders, known = two_students(tmp_path)
    comparison = Comparison(folders, known)
    lines = write_comparison(tmp_path, Comparison(folders, known)).splitlines()
    assert [line.partition(":")[0] for line in lines[:4] if ": " in line[:10]] == ["small", "tiny"]
    assert comparison.verdict().startswith("small: Indicative gain: +3.00 points")
    assert " tiny: No significant difference: +0.00 points of test accuracy" in comparison.verdict()
    assert "\n\ntiny: No significant difference" in (tmp_path / "comparison.md").read_text()
    assert "\n% tiny: No significant difference" in (tmp_path / "comparison.tex").read_text()


def test_the_notes_name_the_student(tmp_path):
    notes = notes_of(Comparison(*two_students(tmp_path)))
    assert "small: Δ base, paired by seed (same initial weights, same batches): +3.00, 95% t-interval" in notes
    assert "tiny: Δ base, paired by seed (same initial weights, same batches): +0.00, 95% t-interval" in notes
    assert "baseline small 81.00 ± 1.00; student small 84.00 ± 2.00; baseline tiny" in notes
    assert "\nstudent: L = CE of student\n" in notes  # the same of both
    assert "each student is tested separately: p is not corrected for the number of students" in notes


def test_the_json_keeps_the_first_and_lists_all(tmp_path):
    folders, known = two_students(tmp_path)
    data = written(tmp_path, folders, known)
    assert [lane["name"] for lane in data["lanes"]] == ["small", "tiny"]
    assert all(data[key] == data["lanes"][0][key] for key in ("paired", "single_run", "gap_closed"))
    assert data["lanes"][1]["verdict"].startswith("No significant difference: +0.00")
    assert [(row["label"], row["lane"]) for row in data["rows"][:2]] == [("teacher", ""), ("baseline", "small")]
    assert data["rows"][4]["paired"] == data["lanes"][1]["paired"]
    assert data["rows"][3]["paired"] is None


def test_one_seed_gives_the_test_set_noise_of_each(tmp_path):
    small = [artifact(tmp_path, role, right=r) for role, r in (("baseline", 80), ("student", 84))]
    tiny = [artifact(tmp_path, role, right=r, model="tiny") for role, r in (("baseline", 70), ("student", 69))]
    cast = [(role, role, lane) for lane in ("small", "tiny") for role in ("baseline", "student")]
    comparison = Comparison([*small, *tiny], record([*small, *tiny], cast=cast))
    first, second = (lane.single for lane in comparison.lanes)
    assert (first.only_second_right, first.only_first_right) == (4, 0)
    assert first.mcnemar_p == stats.binomtest(4, 4).pvalue
    assert (second.only_second_right, second.only_first_right) == (0, 1)
    assert "tiny: test-set noise for these two models" in notes_of(comparison)


def test_a_lost_seed_weakens_its_own_verdict_only(tmp_path):
    second = [
        *seeds_of(tmp_path, "baseline", [70, 71, 72], model="tiny"),
        *seeds_of(tmp_path, "student", [71, None, 73], model="tiny"),
    ]
    comparison = Comparison(*two_students(tmp_path, second))
    assert "diverged" not in comparison.lanes[0].verdict()
    assert "(2 of 3, 1 diverged)" in comparison.lanes[1].verdict()
    assert "student tiny: 2 of 3, 1 diverged: seed 1: epoch 1, batch 2" in notes_of(comparison)


def test_formulas_that_differ_are_told_apart(tmp_path):
    second = [artifact(tmp_path, role, model="tiny", formula=role * 2) for role in ("baseline", "student")]
    notes = notes_of(Comparison(*two_students(tmp_path, second)))
    assert "student small: L = CE of student\nstudent tiny: L = studentstudent" in notes


def test_peers_have_lanes_and_no_teacher(tmp_path):
    second = [
        *seeds_of(tmp_path, "baseline", [70, 71, 72], x=1),
        *seeds_of(tmp_path, "student", [71, 72, 74], x=1),
    ]
    comparison = Comparison(*two_students(tmp_path, second, ("peer", "peer"), teacher=False))
    # all four are of the network small, so the second two show whose they are
    assert column(comparison, "role") == ["baseline", "peer", "baseline tiny", "peer tiny"]
    assert set(column(comparison, "gap %")) == set(column(comparison, "agree %")) == {"–"}
    assert comparison.verdict().startswith("small: Indicative gain: +3.00")
    assert "teacher" not in notes_of(comparison) and "gap" not in notes_of(comparison) + comparison.verdict()
    assert "peer: L = CE of student" in notes_of(comparison)


def test_seeds_that_differ_are_said_for_each(tmp_path):
    second = [artifact(tmp_path, role, seed, model="tiny") for role in ("baseline", "student") for seed in (7, 8)]
    assert "over seeds 0, 1, 2 (student small); 7, 8 (student tiny); time" in notes_of(
        Comparison(*two_students(tmp_path, second))
    )


def test_what_ran_out_of_memory_is_counted_as_such(tmp_path):
    oom = {"status": "oom", "reason": "student small seed 1: 12 GB asked, 8 GB there"}
    folders = [artifact(tmp_path, "baseline", seed, right=80) for seed in (0, 1)]
    folders += [artifact(tmp_path, "student", 0, right=82), artifact(tmp_path, "student", 1, **oom)]
    comparison = Comparison(folders, record(folders))
    assert "(1 of 2, 1 oom)" in comparison.verdict()
    assert "student: 1 of 2, 1 oom: seed 1: 12 GB asked, 8 GB there" in notes_of(comparison)


def test_the_name_that_a_reason_begins_with_is_said_once(tmp_path):
    reasons = ["peer twin (small) seed 0: ce is nan", "a: b seed 1: c"]
    folders = [artifact(tmp_path, "student", s, status="diverged", reason=r) for s, r in enumerate(reasons)]
    cast = [("student", "peer", "twin")] * 2
    comparison = Comparison(folders, record(folders, cast=cast))
    assert "peer: 0 of 2, 2 diverged: seed 0: ce is nan; seed 1: a: b seed 1: c" in notes_of(comparison)


def test_a_student_that_is_the_baseline_has_a_difference_of_nothing_and_no_p(tmp_path):
    folders = [artifact(tmp_path, "teacher", right=95), *seeds_of(tmp_path, "baseline", [80, 81, 82])]
    folders += folders[1:]
    cast = [("teacher",), *[("baseline",)] * 3, *[("student",)] * 3]
    (lane,) = Comparison(folders, record(folders, cast=cast)).lanes
    assert (lane.paired.mean, lane.paired.p, lane.paired.n) == (0.0, None, 3)
