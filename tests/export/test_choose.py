"""Which network a name means: the seed and the cell chosen on validation, never on test."""

import json
import shutil

import pytest

from kdrun.export.choose import choose
from tests.results.given import artifact, changed, run, sweep, trio, two_students

NAME = "2026-01-02_03-04-05-aaaaaa"


def fingerprint(folder):
    return json.loads((folder / "result.json").read_text())["fingerprint"]


def students(store, vals, rights, **more):
    """A teacher, and a student for each seed with its own validation accuracy and number of right test images."""
    made = [artifact(store, "teacher", right=97)]
    return made + [
        artifact(store, "student", seed, right=right, val=val, **more)
        for seed, (val, right) in enumerate(zip(vals, rights, strict=True))
    ]


def test_the_seed_is_the_best_on_validation_even_where_another_is_better_on_test(tmp_path):
    made = students(tmp_path / "store", [0.91, 0.93, 0.92], [95, 80, 90])
    run(tmp_path, NAME, made)
    chosen = choose("aaaaaa", "student", None, tmp_path)
    assert chosen.fingerprint == fingerprint(made[2])
    assert chosen.reason == "seed 1, the best of 3 by validation accuracy (93.00%)"
    assert chosen.run.name == NAME and chosen.role == "student"


def test_of_equal_seeds_the_first_is_taken_and_a_typed_one_is_the_typed_one(tmp_path):
    made = students(tmp_path / "store", [0.9, 0.9], [80, 95])
    run(tmp_path, NAME, made)
    assert choose(NAME, "student", None, tmp_path).fingerprint == fingerprint(made[1])
    assert choose(NAME, "student", 1, tmp_path).fingerprint == fingerprint(made[2])
    assert choose(NAME, "teacher", None, tmp_path).reason == "seed 0, the only one"


def test_where_nothing_was_held_out_it_is_the_first_and_that_is_said(tmp_path):
    made = students(tmp_path / "store", [None, None], [80, 95])
    run(tmp_path, NAME, made)
    chosen = choose(NAME, "student", None, tmp_path)
    assert chosen.fingerprint == fingerprint(made[1])
    assert chosen.reason == "seed 0, the first of 2: there was no validation data to choose by"


def test_a_diverged_seed_is_never_chosen_and_refused_where_it_is_typed(tmp_path):
    made = trio(tmp_path / "store", [None, 90], [80, 80])
    run(tmp_path, NAME, made)
    assert choose(NAME, "student", None, tmp_path).reason == "seed 1, the only one"
    with pytest.raises(ValueError, match="has no finished student: seed 0 diverged"):
        choose(NAME, "student", 0, tmp_path)


def test_of_a_sweep_the_cell_chosen_on_validation_is_meant(tmp_path):
    cells = [
        (["T=1"], students(tmp_path / "store", [0.90, 0.91], [99, 99], T=1)),
        (["T=4"], students(tmp_path / "store", [0.93, 0.92], [80, 81], T=4)),
    ]
    folder = sweep(tmp_path, cells)
    chosen = choose("5eeb01", "student", None, tmp_path)
    assert chosen.fingerprint == fingerprint(cells[1][1][1])
    assert chosen.reason == (
        f"cell {folder.name}/1, the best of 2 by validation (T=4); "
        "seed 0, the best of 2 by validation accuracy (93.00%)"
    )


def test_a_sweep_of_mere_repeats_chooses_nothing_and_names_its_cells(tmp_path):
    cells = [([f"seed={seed}"], students(tmp_path / "store", [0.9], [80 + seed], x=seed)) for seed in (0, 1)]
    folder = sweep(tmp_path, cells)
    with pytest.raises(ValueError, match=rf"is a sweep\. .* Name one of its cells, such as {folder.name}/0"):
        choose("5eeb01", "student", None, tmp_path)
    assert choose(f"{folder.name}/1", "student", None, tmp_path).fingerprint == fingerprint(cells[1][1][1])


def test_of_several_students_each_is_named_and_without_a_name_they_are_told(tmp_path):
    folders, cast = two_students(tmp_path / "store", [(82, 84, 86), (80, 81, 83)])
    run(tmp_path, NAME, folders, cast=cast)
    assert choose(NAME, "student tiny", 2, tmp_path).fingerprint == fingerprint(folders[-1])
    with pytest.raises(ValueError, match=r"several networks called student: student small .*, student tiny"):
        choose(NAME, "student", None, tmp_path)


def test_a_fingerprint_and_a_folder_of_the_store_are_found_with_the_run_that_used_them(tmp_path):
    made = students(tmp_path / "store", [0.9], [90])
    folder = run(tmp_path, NAME, made)
    for name in (fingerprint(made[1]), str(made[1])):
        chosen = choose(name, "student", None, tmp_path)
        assert (chosen.fingerprint, chosen.run.name) == (fingerprint(made[1]), NAME)
        with pytest.raises(ValueError, match="already names a single network; leave role and seed out"):
            choose(name, "student", 0, tmp_path)
    (folder / "run.json").unlink()
    assert choose(fingerprint(made[1]), "student", None, tmp_path).run is None


def test_what_is_not_there_is_refused_with_what_is(tmp_path):
    made = students(tmp_path / "store", [0.9], [90])
    folder = run(tmp_path, NAME, made)
    with pytest.raises(ValueError, match="there is no such run"):
        choose("nothing", "student", None, tmp_path)
    with pytest.raises(ValueError, match="has no baseline; it has teacher seed 0, student seed 0"):
        choose(NAME, "baseline", None, tmp_path)
    changed(folder / "run.json", verb="export")
    with pytest.raises(ValueError, match="is the run of kdrun export, which trains nothing"):
        choose(NAME, "student", None, tmp_path)


def test_a_run_elsewhere_has_its_networks_in_the_store_beside_it(tmp_path):
    """By the folder of a run, of a sweep and of the store, whatever `outputs` is."""
    made = students(tmp_path / "there" / "store", [0.9, 0.91], [90, 91])
    known = run(tmp_path / "there", NAME, made)
    swept = sweep(tmp_path / "there", [(["T=1"], made)])
    here = tmp_path / "here"
    for folder in (known, swept, made[2]):
        assert choose(str(folder), "student", None, here).artifact(here).folder == made[2]
    shutil.rmtree(made[2])
    with pytest.raises(ValueError, match="is no longer in the store"):
        choose(str(known), "student", None, here)
