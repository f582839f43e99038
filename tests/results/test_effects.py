"""What each setting of a sweep changes, and what the teacher adds where."""

import pytest
from scipy import stats

from kdrun.results.sweep.effects import effects_table, everywhere
from kdrun.results.sweep.sweep import Sweep, every_lane
from kdrun.results.sweep.write import write_sweep
from tests.results.given import changed, sweep, trio, two_students

STUDENTS = {("kd", 1): [93, 95], ("kd", 4): [94, 97], ("kl", 1): [92, 92], ("kl", 4): [96, 98]}
BASELINES = {1: [90, 91], 4: [88, 91]}  # by T, as if it were a setting that the baseline has too


@pytest.fixture
def grid(tmp_path):
    """Two losses × two T; the baselines of a T are the same trainings."""
    cells = [
        ([f"loss={loss}", f"T={T}"], trio(tmp_path / "store" / f"{loss}{T}", rights, BASELINES[T]))
        for (loss, T), rights in STUDENTS.items()
    ]
    return sweep(tmp_path / "grid", cells)


def rows(table):
    """Return the table's rows by what was changed and where."""
    lines = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return {(line["setting"], line["at"]): line for line in lines}


def by_scipy(differences):
    """Return mean and 95% interval in per cent, by scipy."""
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    return [f"{sum(differences) / len(differences):+.2f}", f"[{low:+.2f}, {high:+.2f}]"]


def test_a_change_is_averaged_over_the_cells_that_differ_in_it_alone_and_paired_by_seed(grid):
    table = rows(effects_table(every_lane(grid)))
    loss, T = table["loss=kl", "all cells"], table["T=4", "all cells"]
    # by seed: the mean over both T of kl − kd
    assert [loss["Δ student"], loss["95%"]] == by_scipy([(92 - 93 + 96 - 94) / 2, (92 - 95 + 98 - 97) / 2])
    assert (loss["cells"], loss["against"], loss["n"]) == ("2", "kd", "2")
    assert [loss["least"], loss["most"]] == ["-2.00", "+1.50"]  # of T=1 and of T=4
    assert (loss["Δ baseline"], loss["95% baseline"]) == ("–", "–")  # the same trainings
    assert [T["Δ student"], T["95%"]] == by_scipy([(94 - 93 + 96 - 92) / 2, (97 - 95 + 98 - 92) / 2])
    assert [T["Δ baseline"], T["95% baseline"]] == by_scipy([88 - 90, 91 - 91])
    at = table["T=4", "loss=kl"]
    assert [at["cells"], at["Δ student"], at["95%"]] == ["1", *by_scipy([96 - 92, 98 - 92])]


def test_the_teacher_adds_the_difference_to_the_baseline_of_the_same_cell(grid):
    table = effects_table(every_lane(grid))
    taught = rows(table)["teacher", "all cells"]
    by_seed = [sum(own[i] - BASELINES[T][i] for (_, T), own in STUDENTS.items()) / 4 for i in (0, 1)]
    assert [taught["Δ student"], taught["95%"]] == by_scipy(by_seed) and taught["cells"] == "4"
    assert rows(table)["teacher", "loss=kd"]["Δ student"] == f"{(3 + 4 + 6 + 6) / 4:+.2f}"
    assert [row[0] for row in everywhere(table).rows] == ["teacher", "loss=kl", "T=4"]


def test_cells_that_are_missing_or_have_other_images_are_left_out(grid, tmp_path):
    changed(grid / "0" / "run.json", config={"dataset": {"use": "x", "split_seed": 1}})  # loss=kd T=1
    (grid / "3" / "comparison.json").unlink()  # loss=kl T=4
    table = rows(effects_table(every_lane(grid)))
    assert ("T=4", "all cells") not in table and ("loss=kl", "all cells") not in table
    assert table["teacher", "all cells"]["cells"] == "3"


def test_cells_that_repeat_a_setting_with_other_seeds_are_one(tmp_path):
    """-m seed=0,1 loss=kd,kl T=1,4, of which each cell has one seed; the teacher's seeds are told apart."""
    cells = []
    for (loss, T), rights in STUDENTS.items():
        folders = trio(tmp_path / "store" / f"{loss}{T}", rights, BASELINES[T])
        for i in (0, 1):
            cells.append(([f"seed={i}", f"loss={loss}", f"T={T}"], [folders[0], folders[1 + i], folders[3 + i]]))
    kl = rows(effects_table(every_lane(sweep(tmp_path / "seed", cells))))["loss=kl", "all cells"]
    assert [kl["Δ student"], kl["95%"]] == by_scipy([(92 - 93 + 96 - 94) / 2, (92 - 95 + 98 - 97) / 2])
    assert (kl["cells"], kl["n"]) == ("2", "2")
    words = [([word.replace("seed=", "teacher.seed=") for word in typed], folders) for typed, folders in cells]
    again = rows(effects_table(every_lane(sweep(tmp_path / "teacher", words))))["loss=kl", "all cells"]
    assert (again["Δ student"], again["n"]) == (kl["Δ student"], "2")


def test_one_setting_and_a_search_have_no_table_and_several_students_a_lane_each(tmp_path, temperatures, grid):
    assert effects_table([Sweep(temperatures)]) is None
    write_sweep(temperatures)
    assert not (temperatures / "effects.md").exists()
    changed(grid / "sweep.json", searched=True)
    assert effects_table([Sweep(grid)]) is None
    cells = []
    for number, (T, loss) in enumerate([(1, "kd"), (1, "kl"), (4, "kd"), (4, "kl")]):
        folders, cast = two_students(tmp_path / "two" / str(number), [[90 + number, 91], [80 + number, 82]])
        cells.append(([f"loss={loss}", f"T={T}"], folders))
    folder = sweep(tmp_path / "lanes", cells, cast=cast)
    write_sweep(folder)
    lines = [line.split(" | ") for line in (folder / "effects.md").read_text().splitlines() if line.startswith("| T=4")]
    assert [line[2] for line in lines if line[3] == "all cells"] == ["small", "tiny"]
