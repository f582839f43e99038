"""Finding and collecting runs of several teachers, students or generations: each network has its own name."""

import json

import pytest

from kdrun.results.collect import compare_runs
from kdrun.results.find import find_artifact
from kdrun.results.overview import list_runs
from tests.results.given import artifact, reported, run, trio, two_students

FIRST, SECOND, THIRD = "2026-01-02_03-04-05-aaaaaa", "2026-01-02_03-04-09-bbbbbb", "2026-01-02_03-04-10-cccccc"


@pytest.fixture
def several(tmp_path):
    """A run of two students; one of three teachers, two of the same network; and one of two generations."""
    out = tmp_path / "outputs"
    store = out / "store"
    folders, cast = two_students(store, [(82, 84, 86), (80, 81, 83)])
    run(out, FIRST, folders, cast=cast)
    teachers = [artifact(store, "teacher", model=model, right=right) for model, right in (("a", 95), ("b", 96))]
    teachers.append(artifact(store, "teacher", 1, model="a", right=97))
    labels = [("teacher",), ("teacher",), ("teacher", "teacher second"), ("baseline",), ("student",)]
    run(out, SECOND, [*teachers, *trio(store, [93], [90])[1:]], cast=labels, created="2026-01-02T03:04:09+00:00")
    born = [artifact(store, "student", right=91 + k, x=k) for k in (1, 2)]
    labels = [("baseline",), ("generation", "generation 1"), ("student", "generation 2")]
    run(out, THIRD, [artifact(store, "baseline", right=90), *born], cast=labels, created="2026-01-02T03:04:10+00:00")
    return out


def _used(outputs, name):
    record = json.loads((outputs / "runs" / "distill" / name / "run.json").read_text())
    return [a["fingerprint"] for a in record["artifacts"]]


def test_a_network_is_found_by_its_label_and_its_student(several):
    small, tiny, born = _used(several, FIRST)[4:7], _used(several, FIRST)[10:], _used(several, THIRD)
    assert find_artifact("aaaaaa", "student small", several).fingerprint == small[0]
    assert find_artifact("aaaaaa", "student tiny", several, seed=2).fingerprint == tiny[2]
    assert find_artifact("bbbbbb", "teacher second", several).fingerprint == _used(several, SECOND)[2]
    assert find_artifact("cccccc", "generation 1", several).fingerprint == born[1]
    for role in ("student", "generation 2"):
        assert find_artifact("cccccc", role, several).fingerprint == born[2]


def test_of_several_networks_called_so_none_is_guessed(several):
    used = _used(several, FIRST)
    with pytest.raises(ValueError) as refused:
        find_artifact("aaaaaa", "student", several)
    assert str(refused.value) == (
        f"aaaaaa: that run has several networks called student: student small {used[4]}, student tiny {used[10]}; "
        "name one by its fingerprint"
    )
    with pytest.raises(ValueError) as refused:
        find_artifact("bbbbbb", "teacher", several)  # both of seed 0, of other networks
    folders = [f"teacher-digits-{model}-{used}" for model, used in zip("ab", _used(several, SECOND), strict=False)]
    assert f"several networks called teacher: {', '.join(folders)}; name one" in str(refused.value)
    with pytest.raises(ValueError, match="no direct; it has teacher seed 0, baseline small seed 0"):
        find_artifact("aaaaaa", "direct", several)


def test_the_list_has_a_line_for_each_student(several):
    table = list_runs(several, wide=True)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["run"], row["student"], row["verdict"], row["what"].split()[0]) for row in rows] == [
        (FIRST[-6:], "84.00 ± 2.00", "gain?", "small"),
        (FIRST[-6:], "81.33 ± 1.53", "unclear", "tiny"),
        (SECOND[-6:], "93.00", "untested", "distill"),
        (THIRD[-6:], "93.00", "untested", "distill"),
    ]
    assert table.title.startswith("3 runs")


def test_the_report_has_a_row_for_each_student_and_the_ensemble_for_several_teachers(several, tmp_path):
    reported([], several, tmp_path / "report")
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [(row["lane"], row["model"], row["teacher %"], row["baseline %"], row["Δ"]) for row in data["rows"]] == [
        ("–", "small", "–", "90.00", "+3.00"),
        ("–", "small", "96.00", "90.00", "+3.00"),  # two of the three are right on 96
        ("small", "small", "97.00", "81.00 ± 1.00", "+3.00"),
        ("tiny", "tiny", "97.00", "81.00 ± 1.00", "+0.33"),
    ]
    assert data["rows"][3]["95%"] != data["rows"][2]["95%"]
    assert "teacher %: for several teachers, their ensemble's" in data["notes"]
    assert [len(r["lanes"]) for r in data["runs"]] == [1, 1, 2]


def test_runs_of_several_are_compared_network_by_network(several):
    rows = {row[0]: tuple(row[1:]) for row in compare_runs(FIRST, SECOND, several).rows}
    assert rows["student tiny test %"] == ("81.33 ± 1.53", "–")
    assert rows["teacher second test %"] == ("–", "97.00")
    assert rows["ensemble test %"] == ("–", "96.00")
    assert rows["Δ base"] == ("–", "+3.00") and rows["Δ base tiny"] == ("+0.33", "–")
    (several / "runs" / "distill" / FIRST / "comparison.json").unlink()
    (several / "runs" / "distill" / SECOND / "comparison.json").unlink()
    rows = {row[0] for row in compare_runs(FIRST, "aaaaaa", several).rows}
    assert {"student small: the same training", "baseline tiny: the same training"} <= rows  # by run.json alone
