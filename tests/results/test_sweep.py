"""A sweep's table and its choice, whatever state its cells are in."""

import csv
import json

import pytest

from kdrun.results.sweep.sweep import Sweep
from kdrun.results.sweep.table import sweep_table
from kdrun.results.sweep.write import write_sweep
from tests.results.given import artifact, changed, sweep, sweep_rows, trio


def test_the_best_cell_is_chosen_by_validation_and_not_by_test(temperatures):
    sweep = Sweep(temperatures)
    assert sweep.best.values == {"T": "2"}
    assert [row["T"] for row in sweep_rows(temperatures) if row["best"] == "★"] == ["2"]
    assert sweep.verdict().startswith(
        "Best of 4 by validation: T=2 (95.00 ± 0.00%). Indicative gain: +3.00 points of test accuracy"
    )
    tests = {c.values["T"]: sweep.summary(c, "test").mean for c in sweep.cells}
    assert max(tests, key=tests.get) == "4"


@pytest.mark.parametrize("key", ["seed", "teacher.seed", "teachers.a.seed", "dataset.split_seed"])
def test_nothing_is_chosen_among_repeats(tmp_path, cell, key):
    cells = [(0, 0.91, [93, 95]), (1, 0.95, [93, 95]), (2, 0.93, [93, 95])]
    folder = sweep(tmp_path, [([f"{key}={v}"], cell(rights, val)) for v, val, rights in cells])
    grid = Sweep(folder)
    assert grid.best is None and grid.at_edge() == []
    assert grid.verdict().startswith("No cell is chosen")


def told_of(folder, datasets):
    """Write into each cell's run.json what it was told of its data set."""
    for number, dataset in enumerate(datasets):
        file = folder / str(number) / "run.json"
        changed(file, config={"dataset": dataset})
    return folder


@pytest.mark.parametrize(
    ("typed", "key", "values"),
    [
        ("dataset", "use", ["digits.digits", "mnist.mnist"]),
        ("experiment", "use", ["digits.digits", "mnist.mnist"]),
        ("dataset.root", "root", ["a", "b"]),
        ("dataset.num_classes", "num_classes", [3, 6]),
        ("dataset.size", "size", [8, 16]),
        ("dataset.train_images", "train_images", [500, 1000]),
        ("dataset.val_fraction", "val_fraction", [0.1, 0.2]),
        ("loss", "split_seed", [0, 1]),  # whatever it was that changed them
    ],
)
def test_nothing_is_chosen_among_cells_that_were_judged_by_other_images(tmp_path, cell, typed, key, values):
    cells = [([f"{typed}={v}"], cell([93, 95], val)) for v, val in zip(values, (0.91, 0.95), strict=True)]
    grid = Sweep(told_of(sweep(tmp_path, cells), [{"use": "x", key: value} for value in values]))
    assert grid.best is None and grid.at_edge() == []
    assert grid.verdict().startswith(
        "No cell is chosen: the cells only repeat a training, or were tested on different images"
    )


@pytest.mark.parametrize("key", ["crop_padding", "flip", "max_resident_gb"])
def test_how_images_are_used_is_a_setting_like_others(tmp_path, cell, key):
    cells = [([f"dataset.{key}={v}"], cell([93, 95], val)) for v, val in ((0, 0.91), (1, 0.95))]
    grid = Sweep(told_of(sweep(tmp_path, cells), [{"use": "x", key: value} for value in (0, 1)]))
    assert grid.best.values == {f"dataset.{key}": "1"}


def test_cells_whose_student_is_the_baseline_are_no_tests(tmp_path, cell):
    """With alpha=0 nothing is distilled, whatever T: these cells have no p, and Holm counts two tests less."""
    taught = {T: cell([92, 94, 95], 0.95 + T / 1000) for T in (1, 4)}
    rows = 1 + 2 * 3
    cast = [("teacher",), *[("baseline",)] * 3, *[("student",)] * 3]
    alone = [*taught[1][:4], *taught[1][1:4]]
    assert len(alone) == rows
    cells = [([f"alpha={a}", f"T={T}"], taught[T] if a else alone) for a in (0, 0.9) for T in (1, 4)]
    folder = sweep(tmp_path, cells, cast=cast)
    grid = Sweep(folder)
    assert grid.best.number == 3 and grid.holm == {2: 0.25}
    ps = {(row["alpha"], row["T"]): (row["p"], row["p Holm"]) for row in sweep_rows(folder)[2:]}
    assert ps == {("0", "1"): ("–", "–"), ("0", "4"): ("–", "–"), ("0.9", "1"): ("0.250", "0.250"),
                  ("0.9", "4"): ("0.250", "0.500")}  # fmt: skip
    notes = sweep_table([grid]).notes
    assert "p Holm: corrected for the 1 other cell; it can be below 0.05 with 6 or more seeds" in notes


@pytest.mark.parametrize("words", [[], ["cost"]])
def test_a_sweep_in_any_place_has_its_sweep_rows(tmp_path, cell, monkeypatch, words):
    """Also where few folders lie above it; its networks are found in the store beside it."""
    monkeypatch.chdir(tmp_path)
    folder = sweep(tmp_path, [(["T=1"], cell([93], 0.95))], config={"columns": words})
    bare = folder.rename(tmp_path / "bare")
    monkeypatch.setattr("kdrun.results.columns._networks", lambda run, row, outputs: [])
    assert sweep_table([Sweep(bare.relative_to(tmp_path))]).rows


def test_a_cell_that_lost_a_seed_does_not_win_on_its_survivors(tmp_path, cell):
    cells = [(1, 0.91, [93, 95]), (2, 0.99, [93, None])]
    folder = sweep(tmp_path, [([f"T={T}"], cell(rights, val)) for T, val, rights in cells])
    assert Sweep(folder).best.values == {"T": "1"}


def test_equal_accuracies_are_decided_by_the_loss_and_then_by_the_order(tmp_path, cell):
    folder = sweep(tmp_path, [([f"T={T}"], cell(rights, 0.95)) for T, rights in ((1, [93]), (2, [94]), (4, [95]))])
    assert Sweep(folder).best.values == {"T": "1"}
    comparison = folder / "2" / "comparison.json"
    rows = json.loads(comparison.read_text())["rows"]
    next(r for r in rows if r["role"] == "student")["val_nll"]["mean"] = 0.001
    changed(comparison, rows=rows)
    assert Sweep(folder).best.values == {"T": "4"}


def test_what_all_cells_share_is_said_once(temperatures):
    rows = sweep_rows(temperatures)
    assert [row["T"] for row in rows] == ["teacher big", "baseline small", "1", "2", "4", "8"]
    assert (rows[0]["test %"], rows[1]["test %"]) == ("97.00", "91.00 ± 1.00")
    assert rows[3] | {"p Holm": ""} == {
        "T": "2", "best": "★", "val %": "95.00 ± 0.00", "test %": "94.00 ± 1.00", "Δ base": "+3.00",
        "95%": "[+0.52, +5.48]", "p": "0.250", "p Holm": "", "n": "3", "status": "done",
    }  # fmt: skip


def test_a_partial_sweep_says_what_is_missing_and_ranks_the_rest(tmp_path, cell):
    cells = [
        (["T=1"], cell([93, 94], 0.92)),
        (["T=2"], ("failed", "boom \x1b[31m")),
        (["T=4"], ("failed", "boom \x1b[31m")),
        (["T=8"], ("waiting", None)),
        (["T=16"], ("running", None)),
    ]
    folder = sweep(tmp_path, cells, status="running")
    text = write_sweep(folder)
    assert "1 of 5 cells finished, 2 failed. Best of 1 by validation: T=1" in text.replace("\n", " ")
    assert [row["status"] for row in sweep_rows(folder)[2:]] == ["done", "failed", "failed", "waiting", "running"]
    assert "T=2, T=4: failed: boom �[31m" in text and "\x1b" not in text
    assert "2 of 5 cells failed; the same command runs only what is missing" in text
    assert "edge" not in text  # of one cell


def test_cells_of_a_sweep_that_is_over_neither_run_nor_wait(tmp_path, cell):
    cells = [(["T=1"], cell([93], 0.92)), (["T=2"], ("running", None)), (["T=4"], ("waiting", None))]
    folder = sweep(tmp_path, cells, status="interrupted")
    assert [row["status"] for row in sweep_rows(folder)[2:]] == ["done", "interrupted", "not started"]
    assert Sweep(folder).verdict().startswith("1 of 3 cells finished. Best of 1")


def test_a_sweep_without_numbers_has_a_table_and_no_picture(tmp_path):
    folder = sweep(tmp_path, [(["T=1"], ("failed", "a")), (["T=2"], ("failed", "b"))], status="failed")
    text = write_sweep(folder)
    assert text.startswith("0 of 2 cells finished, 2 failed.")
    assert "T=1: failed: a" in text and "T=2: failed: b" in text
    assert sweep_table([Sweep(folder)]).columns == ["T", "status"]
    assert not (folder / "sweep.svg").exists() and (folder / "sweep.md").is_file()


def test_without_validation_data_no_cell_is_chosen(tmp_path):
    store = tmp_path / "store"
    cells = [([f"T={T}"], trio(store / str(T), [93], [90], val=None)) for T in (1, 2)]
    folder = sweep(tmp_path, cells)
    assert Sweep(folder).best is None
    assert Sweep(folder).verdict() == "No cell is chosen: nothing was held out for validation."
    assert "★" not in write_sweep(folder)


def test_baselines_that_differ_between_cells_stand_in_a_column(tmp_path, cell):
    cells = [(["recipe.lr=0.1"], cell([93], 0.92, [90])), (["recipe.lr=0.01"], cell([93], 0.95, [91]))]
    rows = sweep_rows(sweep(tmp_path, cells))
    assert [row["baseline %"] for row in rows] == ["–", "90.00", "91.00"]
    assert rows[0]["recipe.lr"] == "teacher big"


def test_only_the_keys_that_vary_are_swept(tmp_path, cell):
    cells = [([f"T={T}", "seeds=1", "recipe=quick"], cell([93], 0.9 + T / 100)) for T in (1, 2)]
    assert Sweep(sweep(tmp_path, cells)).keys == ["T"]


def test_the_files_hold_exact_numbers_and_the_choice(temperatures):
    write_sweep(temperatures)
    heading, *rows = csv.reader((temperatures / "sweep.csv").open())
    assert float(rows[3][heading.index("test %")]) == pytest.approx(94.0)
    assert float(rows[3][heading.index("95% low")]) == pytest.approx(0.5159, abs=1e-4)
    data = json.loads((temperatures / "sweep.json").read_text())
    assert data["best"] == {"number": 1, "swept": {"T": "2"}}
    assert [c["p_holm"] for c in data["cells"]] == [1.0, None, 0.75, 0.75]
    assert data["cells"][1]["paired"]["n"] == 3
    assert "![accuracy over the sweep](sweep.svg)" in (temperatures / "sweep.md").read_text()
    assert [row["T"] for row in sweep_rows(temperatures)][2:] == ["1", "2", "4", "8"]  # what was written is read again


def test_a_damaged_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no sweep\.json"):
        Sweep(tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match=r"sweep\.json is damaged"):
        Sweep(tmp_path)


def test_a_swept_list_is_shown_as_it_was_typed_on_a_narrow_terminal_too(tmp_path, cell, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    cells = [(["loss=[kd,crd]"], cell([93], 0.92)), (["loss=kd"], cell([93], 0.95))]
    folder = sweep(tmp_path, cells)
    assert [row["loss"] for row in sweep_rows(folder)][2:] == ["[kd,crd]", "kd"]
    assert Sweep(folder).verdict().startswith("Best of 2 by validation: loss=kd (95.00%)")
    text = write_sweep(folder)
    assert "| [kd,crd] |" in (folder / "sweep.md").read_text()
    assert "[kd,crd]" in text[text.index("test %") :] and "left out on 40 columns: " in text


def test_teachers_that_differ_between_cells_stand_in_a_column_by_their_ensemble(tmp_path, cell):
    store = tmp_path / "store"
    a, b, c = (artifact(store, "teacher", model=m, right=r) for m, r in (("a", 95), ("b", 95), ("c", 97)))
    cells = [(["teachers=[a,b]"], [a, b, *cell([93], 0.92)[1:]]), (["teachers=[c]"], [c, *cell([93], 0.95)[1:]])]
    assert [row["teacher %"] for row in sweep_rows(sweep(tmp_path, cells))][1:] == ["95.00", "97.00"]
