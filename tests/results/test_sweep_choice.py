"""How sure the choice of a sweep is: p of the chosen cell and of the others, and a grid that may be too narrow."""

import json

import numpy as np
import pytest

from kdrun.results.sweep.sweep import Sweep
from kdrun.results.sweep.table import sweep_table
from kdrun.results.sweep.write import write_sweep
from tests.results.given import artifact, sweep, sweep_rows


def lucky(tmp_path, test_gains, val_gains):
    """A sweep over T of six seeds, whose gains are given in points: (cells, seeds) each."""
    rng = np.random.default_rng(0)
    base_test, base_val = rng.integers(55, 65, 6), rng.integers(55, 65, 6)
    teacher = artifact(tmp_path / "store", "teacher", right=97)
    seeds = range(6)
    base = [artifact(tmp_path / "store", "baseline", s, right=int(base_test[s]), val=base_val[s] / 100) for s in seeds]
    cells = []
    for T, (tests, vals) in enumerate(zip(test_gains, val_gains, strict=True), start=1):
        taught = [
            artifact(tmp_path / "store", "student", s, right=int(base_test[s] + tests[s]),
                     val=(base_val[s] + vals[s]) / 100, T=T) for s in seeds
        ]  # fmt: skip
        cells.append(([f"T={T}"], [teacher, *base, *taught]))
    return Sweep(sweep(tmp_path, cells))


def test_where_the_baseline_itself_is_best_no_wider_grid_is_asked_for(tmp_path, cell):
    taught = {T: cell([92, 94, 95], 0.8 + T / 1000) for T in (1, 4)}
    cast = [("teacher",), *[("baseline",)] * 3, *[("student",)] * 3]
    cells = [([f"alpha={a}", f"T={T}"], taught[T] if a else [*taught[1][:4], *taught[1][1:4]])
             for a in (0, 0.9) for T in (1, 4)]  # fmt: skip
    grid = Sweep(sweep(tmp_path, cells, cast=cast))
    assert grid.best.values == {"alpha": "0", "T": "1"} and grid.at_edge() == []


def test_holm_covers_the_cells_that_were_not_chosen_and_for_the_chosen_one_all_cells(temperatures):
    sweep = Sweep(temperatures)
    assert sweep.holm == {0: 1.0, 2: 0.75, 3: 0.75}  # p = 1, 0.25, 0.25
    assert [row["p Holm"] for row in sweep_rows(temperatures)] == ["–", "–", "1.000", "1.000", "0.750", "0.750"]
    notes = sweep_table([sweep]).notes
    assert notes[-1] == "p Holm: corrected for the 3 other cells; it can be below 0.05 with 7 or more seeds"
    assert notes[-2] == (
        "★: highest mean validation accuracy of 4 trials; that cell's p on test data is uncorrected, which assumes "
        "that gains on validation and on test data are nearly independent; its p Holm is corrected for all 4 cells"
    )
    assert sweep.verdict().endswith(
        " That p is not corrected for the choice among 4 cells; Holm-corrected p = 1.000."
    )  # where the validation accuracies of all seeds are the same


def test_the_chosen_cells_p_stands_beside_holm_over_all_cells_and_the_luck_that_it_rests_on(tmp_path):
    """Five cells of six seeds: p = 2/64, times 5; the correlation is numpy's, of the gains less their cells' means."""
    rng = np.random.default_rng(4)
    val = rng.integers(-3, 4, (5, 6)) + np.array([[2], [3], [12], [1], [0]])
    test = rng.integers(-3, 4, (5, 6)) + np.array([[0], [0], [9], [0], [0]])
    sweep = lucky(tmp_path, test, val)
    away = [(gains - gains.mean(axis=1, keepdims=True)).ravel() for gains in (val, test)]
    r = np.corrcoef(*away)[0, 1]
    assert (sweep.luck.r, sweep.luck.n) == (pytest.approx(r), 30) and r < 0.3
    assert sweep.best.values == {"T": "3"}
    assert "p = 0.031, n = 6" in sweep.verdict() and sweep.best_of_all == pytest.approx(5 * 2 / 64)
    assert sweep.verdict().endswith(
        " That p is not corrected for the choice among 5 cells; Holm-corrected p = 0.156. Gains on validation and on "
        f"test data correlate, r = {r:.2f} (n = 30)."
    )
    assert [row["p Holm"] for row in sweep_rows(sweep.folder) if row["best"]] == ["0.156"]
    write_sweep(sweep.folder)
    written = json.loads((sweep.folder / "sweep.json").read_text())
    assert written["luck"] == {"r": pytest.approx(r), "n": 30} and written["best_p_holm"] == pytest.approx(0.15625)


def test_where_both_lucks_are_the_same_holm_is_recommended(tmp_path):
    gains = np.random.default_rng(1).integers(-3, 9, (3, 6))
    sweep = lucky(tmp_path, gains, gains)
    assert sweep.luck.r == pytest.approx(1)
    assert sweep.verdict().endswith("correlate, r = 1.00 (n = 18): with r of 0.3 or more, use the corrected p.")


def test_of_a_single_cell_nothing_was_chosen_so_that_nothing_is_said(tmp_path):
    sweep = lucky(tmp_path, [[3, 4, 2, 5, 1, 2]], [[1, 2, 3, 1, 2, 3]])
    assert sweep.best_of_all is None and "corrected" not in sweep.verdict()
    assert "uncorrected" not in " ".join(sweep_table([sweep]).notes)


def _edges(tmp_path, cell, key, values, best):
    cells = [([f"{key}={v}"], cell([93], 0.95 if v == best else 0.9 - i / 100)) for i, v in enumerate(values)]
    return Sweep(sweep(tmp_path, cells)).at_edge()


@pytest.mark.parametrize(
    ("key", "values", "best", "warned"),
    [
        ("T", "124", "4", "largest"),
        ("T", "124", "1", "smallest"),
        ("T", "124", "2", None),
        ("T", ["16", "4", "8"], "16", "largest"),
        ("alpha", ["0.5", "0.9", "1"], "1", None),  # nothing lies beyond 1
        ("alpha", ["0.5", "0.9"], "0.9", "largest"),
        ("seed", "012", "0", None),
        ("loss", ["kd", "ce"], "kd", None),
    ],
)
def test_a_best_value_at_the_edge_of_the_grid_is_pointed_out(tmp_path, cell, key, values, best, warned):
    sentence = f"{key}={best} is the {warned} value tried: extend the grid beyond it"
    assert _edges(tmp_path, cell, key, values, best) == ([sentence] if warned else [])


@pytest.mark.parametrize(("val", "beaten"), [([[-1] * 6, [-2] * 6], True), ([[0] * 6, [-2] * 6], True),
                                              ([[1] * 6, [-2] * 6], False)])  # fmt: skip
def test_where_no_student_beats_the_baseline_on_validation_the_verdict_says_what_to_ship(tmp_path, val, beaten):
    sweep = lucky(tmp_path, [[9] * 6, [1] * 6], val)
    assert sweep.best.values == {"T": "1"}  # the choice stands
    lead = "No cell beats the baseline on validation: ship the baseline (59.00 ± 4.15%). Best of 2 by validation: T=1"
    assert (sweep.beaten != "") == beaten and sweep.verdict().startswith(lead) == beaten
