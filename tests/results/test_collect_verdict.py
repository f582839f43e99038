"""The report's first line: what all runs together show, each training counted once."""

import json

from kdrun.results.collect import collected, write_report
from tests.results.given import FIRST, SECOND, artifact, run, seeds_of, trio, unsealed


def verdict(outputs, target):
    """Return what the report of all runs says first."""
    return write_report(collected([], outputs), target).titles[0]


def test_the_same_training_in_several_commands_counts_once(tmp_path):
    made = trio(tmp_path / "store", [95, 96, 97, 96] * 2, [90] * 8)
    for name in (FIRST, SECOND):
        run(tmp_path, name, made)
    alone = verdict(tmp_path, tmp_path / "report")
    assert alone.startswith("Gain: +6.00 points")  # one student has its own verdict
    run(tmp_path, "2026-01-02_03-04-10-cccccc", trio(tmp_path / "store", [85] * 7 + [86], [90] * 8, x=1))
    sentence = verdict(tmp_path, tmp_path / "report")
    assert sentence.startswith(
        "Of the 2 students, 1 gained and 1 lost significantly against the baseline (Holm-corrected);"
    )
    assert sentence.endswith("the largest gain: +6.00 points (aaaaaa).")


def test_students_of_one_seed_each_are_said_not_to_be_testable(tmp_path):
    for k, name in enumerate((FIRST, SECOND)):
        run(tmp_path, name, trio(tmp_path / "store", [93 + k], [90]))
    sentence = verdict(tmp_path, tmp_path / "report")
    assert sentence == "None of the 2 students was tested: each has only one finished seed."


def test_a_small_p_with_an_interval_around_nothing_is_no_gain(tmp_path):
    """Seven small gains and one large one: p = 0.008, and an interval from below 0."""
    for k, name in enumerate((FIRST, SECOND)):
        run(tmp_path, name, trio(tmp_path / "store", [61] * 7 + [97], [60] * 8, x=k))
    data = json.loads((tmp_path / "runs" / "distill" / FIRST / "comparison.json").read_text())["paired"]
    assert data["p"] < 0.01 and data["low"] < 0
    sentence = verdict(tmp_path, tmp_path / "report")
    assert sentence.startswith("None of the 2 students differs significantly from its baseline (Holm-corrected)")


def test_students_that_are_their_baselines_are_no_tests_of_the_report(tmp_path):
    """Also those whose comparison was written when such a pair still had a p."""
    made = trio(tmp_path / "store", [94, 96, 97], [90, 91, 92])
    run(tmp_path, FIRST, made)
    same = [made[0], *made[1:4], *made[1:4]]
    folder = run(tmp_path, SECOND, same, cast=[("teacher",), *[("baseline",)] * 3, *[("student",)] * 3])
    file = folder / "comparison.json"
    whole = json.loads(file.read_text())
    paired = whole["paired"] | {"p": 1.0}
    unsealed(file, paired=paired, lanes=[whole["lanes"][0] | {"paired": paired}])
    table = write_report(collected([], tmp_path), tmp_path / "report")
    assert {row[0]: row[table.columns.index("p Holm")] for row in table.rows} == {FIRST: "0.250", SECOND: "–"}
    assert table.titles[0].startswith("Indicative gain: +4.67 points")


def test_the_first_line_is_a_verdict_even_where_nothing_was_held_against_a_baseline(tmp_path):
    run(tmp_path, FIRST, [artifact(tmp_path / "store", "teacher", right=97)])
    assert verdict(tmp_path, tmp_path / "report") == "teacher big: test accuracy 97.00%."
    run(tmp_path, SECOND, seeds_of(tmp_path / "store", "baseline", [90, 91]))
    nothing = "Nothing to test: no run here has a student and a baseline to compare it with."
    assert verdict(tmp_path, tmp_path / "report") == nothing
    run(tmp_path / "begun", FIRST, [])
    assert verdict(tmp_path / "begun", tmp_path / "report") == nothing
