"""Finding runs and artifacts: by name, by its start, by folder, by what used them."""

import json
import shutil

import pytest

from kdrun.results.find import find_artifact, find_run
from kdrun.results.overview import list_runs
from tests.results.given import FIRST, SECOND, SWEEP, reported


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (FIRST, f"runs/distill/{FIRST}"),
        ("latest", f"runs/distill/{SECOND}"),
        ("2026-01-02_03-04-05", f"runs/distill/{FIRST}"),
        ("bbbbbb", f"runs/distill/{SECOND}"),
        (f"{SWEEP}/0", f"sweeps/distill/{SWEEP}/0"),
        ("5eeb01/1", f"sweeps/distill/{SWEEP}/1"),
    ],
)
def test_a_run_is_found_by_its_name_its_start_its_last_part_or_as_the_latest(outputs, name, meant):
    assert find_run(name, outputs) == (outputs / meant).resolve()


def test_a_run_is_found_by_its_folder_whatever_that_is_called(outputs, tmp_path, monkeypatch):
    shutil.copytree(outputs / "runs" / "distill" / FIRST, tmp_path / "kept")
    assert find_run(str(tmp_path / "kept"), outputs) == tmp_path / "kept"
    monkeypatch.chdir(tmp_path)
    assert find_run("kept", outputs) == tmp_path / "kept"


def test_an_unknown_run_is_refused_with_the_nearest_one_and_the_newest(outputs):
    with pytest.raises(ValueError) as refused:
        find_run("2026-01-02_03-04-05-aaaaab", outputs)
    assert str(refused.value) == (
        f"2026-01-02_03-04-05-aaaaab: there is no such run under {outputs}. Did you mean {FIRST} or {SECOND} or "
        f"{SWEEP}? The newest is {SWEEP}/0; kdrun runs lists all runs"
    )


def test_where_nothing_was_run_that_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"latest: there is no such run under .*\. There are none yet"):
        find_run("latest", tmp_path)
    text = list_runs(tmp_path).to_text().replace("\n", " ")  # a long path is wrapped
    assert text == f"there are no runs under {tmp_path} yet; start with kdrun distill"
    with pytest.raises(ValueError, match="start with kdrun distill"):
        reported([], tmp_path, tmp_path / "report")


def test_a_start_that_fits_two_runs_is_refused_with_both(outputs):
    with pytest.raises(ValueError) as refused:
        find_run("2026-01-02", outputs)
    assert str(refused.value) == f"2026-01-02: 2 runs begin like this: {SECOND}, {FIRST}"


def test_a_sweep_is_no_run_but_its_cells_are_named(outputs):
    with pytest.raises(ValueError) as refused:
        find_run("5eeb01", outputs)
    assert str(refused.value) == f"5eeb01: is a sweep; name one of its cells, such as {SWEEP}/0"


def _print(outputs, name, role, seed):
    used = json.loads((outputs / "runs" / "distill" / name / "run.json").read_text())["artifacts"]
    return next(a["fingerprint"] for a in used if (a["role"], a["seed"]) == (role, seed))


def test_an_artifact_is_found_by_the_run_that_used_it_its_role_and_seed(outputs):
    for role, seed in (("teacher", 0), ("student", 0), ("student", 2)):
        assert find_artifact(FIRST, role, outputs, seed=seed).fingerprint == _print(outputs, FIRST, role, seed)
    assert find_artifact("latest", "teacher", outputs).fingerprint == _print(outputs, SECOND, "teacher", 0)
    assert find_artifact(FIRST, "student", outputs).fingerprint == _print(outputs, FIRST, "student", 0)


def test_an_artifact_is_found_by_its_fingerprint_and_by_its_folder(outputs):
    folder = next((outputs / "store").glob("teacher-*"))
    fingerprint = json.loads((folder / "result.json").read_text())["fingerprint"]
    assert find_artifact(fingerprint, "student", outputs).fingerprint == fingerprint
    assert find_artifact(str(folder), "teacher", outputs).fingerprint == fingerprint
    (folder / "result.json").unlink()
    with pytest.raises(ValueError, match=r"no result\.json, so its training is unfinished"):
        find_artifact(str(folder), "teacher", outputs)


def test_a_role_that_a_run_lacks_is_refused_with_those_it_has(outputs):
    with pytest.raises(ValueError) as refused:
        find_artifact("latest", "student", outputs, seed=3)
    assert str(refused.value) == (
        "latest: that run has no student of seed 3; it has teacher seed 0, baseline seed 0, student seed 0: choose by "
        "role and seed"
    )
