"""A sweep whose cells have several students: each is chosen, corrected and drawn on its own."""

import json

import pytest

from kdrun.results.plots.sweep import plot_sweep
from kdrun.results.sweep.sweep import Sweep, every_lane
from kdrun.results.sweep.table import sweep_table
from kdrun.results.sweep.write import write_sweep
from tests.results.given import sweep, two_students


@pytest.fixture
def lanes(tmp_path):
    """Three temperatures of two students; on validation T=2 is best for the first, T=1 for the second."""
    vals = {1: {"small": 0.91, "tiny": 0.95}, 2: {"small": 0.95, "tiny": 0.92}, 4: {"small": 0.93, "tiny": 0.93}}
    rights = {1: [(82, 82, 82), (81, 82, 84)], 2: [(83, 84, 86), (80, 81, 82)], 4: [(84, 85, 85), (79, 81, 82)]}
    made = {T: two_students(tmp_path / "store", rights[T], val=vals[T]) for T in vals}
    cast = made[1][1]
    cells = [([f"T={T}"], folders) for T, (folders, _) in made.items()]
    return sweep(tmp_path, [*cells, (["T=8"], ("failed", "boom"))], cast=cast)


def test_every_student_of_a_cell_has_a_row_and_a_choice_of_its_own(lanes):
    small, tiny = every_lane(lanes)
    assert (small.best.values, tiny.best.values) == ({"T": "2"}, {"T": "1"})
    table = sweep_table([small, tiny])
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["T"], row["lane"], row["best"]) for row in rows] == [
        ("teacher big", "–", ""),
        ("baseline small", "small", ""),
        ("1", "small", ""), ("2", "small", "★"), ("4", "small", ""), ("8", "small", ""),
        ("baseline tiny", "tiny", ""),
        ("1", "tiny", "★"), ("2", "tiny", ""), ("4", "tiny", ""), ("8", "tiny", ""),
    ]  # fmt: skip
    assert [row["Δ base"] for row in rows if row["status"] == "done" and row["p"] != "–"] == [
        "+1.00", "+3.33", "+3.67", "+1.33", "+0.00", "-0.33"
    ]  # fmt: skip
    assert table.title.parts[1].startswith("tiny: 3 of 4 cells finished, 1 failed. Best of 3 by validation: T=1 (95.00")
    assert "tiny: T=1 is the smallest value tried: extend the grid beyond it" in table.notes
    assert [note for note in table.notes if "failed" in note] == [
        "1 of 4 cells failed; the same command runs only what is missing", "T=8: failed: boom"
    ]  # fmt: skip
    assert set(small.holm) == {0, 2} and set(tiny.holm) == {1, 2}


def test_the_files_of_several_students_hold_each_choice_and_all_rows(lanes):
    text = write_sweep(lanes)
    assert "\ntiny: 3 of 4 cells" in text and "lane: which student of a cell; the choice" in text
    data = json.loads((lanes / "sweep.json").read_text())
    assert [(lane["name"], lane["best"]["number"]) for lane in data["lanes"]] == [("small", 1), ("tiny", 0)]
    assert data["best"] == data["lanes"][0]["best"]
    assert [row["name"] for row in data["cells"][0]["rows"]] == [
        "teacher", "baseline small", "student small", "baseline tiny", "student tiny"
    ]  # fmt: skip
    assert [cell["swept"] for cell in data["cells"]] == [{"T": T} for T in "1248"]
    assert [lane["name"] for lane in data["lanes"]] == Sweep(lanes).lanes  # what was written is read again


def test_each_student_is_drawn_on_axes_of_its_own(lanes, figures):
    plot_sweep(every_lane(lanes), lanes)
    axes = figures[0].axes[::2]  # on validation; the others are on test
    assert [one.get_title(loc="left").split(":")[0] for one in axes] == ["small", "tiny"]
    lines = [{line.get_label(): list(line.get_xdata()) for line in one.lines} for one in axes]
    assert [line["best by validation"] for line in lines] == [[2, 2], [1, 1]]


def test_cells_with_other_students_stand_only_where_they_have_them(tmp_path):
    both, cast = two_students(tmp_path / "store", [(82, 84, 86), (80, 81, 83)])
    cells = [(["students=[small,tiny]"], both), (["students=[small]"], both[:7])]
    folder = sweep(tmp_path, cells, cast=cast)
    assert Sweep(folder).lanes == ["small", "tiny"]
    assert [[c.number for c in lane.cells] for lane in every_lane(folder)] == [[0, 1], [0]]
