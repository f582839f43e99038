"""A sweep over how much the student learns from chooses nothing, and says how much accuracy the teacher recovers."""

import pytest

from kdrun.results.plots.sweep import _series
from kdrun.results.report.write import write_sweep_page
from kdrun.results.sweep.sweep import Sweep
from kdrun.results.sweep.table import sweep_table
from tests.results.given import sweep, trio


def fractions(tmp_path, cells, key="transfer.fraction", **more):
    """A sweep of cells (typed words, students' and baselines' right answers)."""
    made = [
        ([f"{key}={value}", *others], trio(tmp_path / "store" / f"{n}", students, baselines, **more))
        for n, (value, others, students, baselines) in enumerate(cells)
    ]
    return Sweep(sweep(tmp_path, made))


def test_the_share_is_that_by_hand_whatever_the_order_typed(tmp_path):
    sweep = fractions(tmp_path, [("1.0", [], [95, 95], [90, 92]), ("0.03", [], [84, 86], [70, 72])])
    assert sweep.best is None and sweep.at_edge() == []
    assert sweep.verdict() == (
        "With 3% of the images, the teacher recovers 70% of the accuracy lost: 85.00 ± 1.41% with it, 71.00 ± 1.41% "
        "without, and 91.00 ± 1.41% without it on 100% of the images. No cell is chosen: the cells learn from "
        "different training data."
    )
    table = sweep_table([sweep])
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["baseline %"], row["test %"]) for row in rows[1:]] == [
        ("91.00 ± 1.41", "95.00 ± 0.00"), ("71.00 ± 1.41", "85.00 ± 1.41")
    ]  # fmt: skip
    assert "best" not in table.columns


def test_a_teacher_that_makes_it_worse_is_not_said_to_recover_anything(tmp_path):
    sweep = fractions(tmp_path, [("0.03", [], [66], [70]), ("1.0", [], [95], [90])])
    assert "the teacher adds 20% to the accuracy lost:" in sweep.verdict()


def test_of_several_fractions_each_is_held_against_the_largest(tmp_path):
    cells = [("0.1", [], [80], [70]), ("0.5", [], [90], [95]), ("1.0", [], [95], [90])]
    sentence = fractions(tmp_path, cells).verdict()
    assert sentence.count("recovers") == 1 and "With 50%" not in sentence  # no worse alone than with all


@pytest.mark.parametrize("key", ["transfer.omit_classes", "transfer.labels"])
def test_nothing_is_chosen_among_other_ways_to_take_something_away(tmp_path, key):
    sweep = fractions(tmp_path, [("[3]", [], [80], [70]), ("[]", [], [95], [90])], key=key)
    assert sweep.best is None and sweep.verdict() == "No cell is chosen: the cells learn from different training data."


def test_a_setting_swept_beside_it_is_chosen_as_ever(tmp_path):
    cells = [("0.1", ["T=2"], [80], [70]), ("0.5", ["T=4"], [95], [90])]
    sweep = fractions(tmp_path, cells)
    assert sweep.best is not None and len(sweep.at_edge()) == 1, "more images are no setting to be tried"


def test_a_baseline_of_its_own_in_each_cell_is_drawn_and_each_cell_stands_on_the_page(tmp_path):
    sweep = fractions(tmp_path, [("0.03", [], [84, 86], [70, 72]), ("1.0", [], [95, 95], [90, 92])])
    assert [role for role, _ in _series(sweep, "test", sweep.cells)] == ["baseline", "student"]
    assert [n for n in sweep_table([sweep]).notes if n.startswith("p Holm: corrected for the 2 cells;")]
    page = write_sweep_page(sweep.folder, tmp_path / "store" / "0").read_text()
    for fraction in ("0.03", "1.0"):
        assert f"<summary>transfer.fraction={fraction}</summary>" in page
    assert "torch 2.11.0" in page[page.index("Reproduce") :]


def test_a_baseline_that_all_cells_share_is_drawn_once(tmp_path):
    folders = trio(tmp_path / "store", [93, 94], [90, 91])
    grid = Sweep(sweep(tmp_path, [([f"T={t}"], folders) for t in (1, 2)]))
    assert [role for role, _ in _series(grid, "test", grid.cells)] == ["student"]
