"""Errors per class: held against counts made by hand."""

import numpy as np
import pytest

from kdrun.results.comparison.classes import class_table
from kdrun.results.comparison.comparison import Comparison
from tests.results.given import CLASSES, LABELS, LOST, artifact, logits, record, seeds_of, two_students

OWN = np.arange(len(LABELS)) // CLASSES  # the place of a sample among those of its class


def right_but(*wrong):
    """A mask that is wrong on the first `wrong[c]` samples of class c."""
    return np.array([place >= wrong[c] for c, place in zip(LABELS, OWN, strict=True)])


def trio(store, students, baselines):
    folders = [artifact(store, "teacher", z=logits(right_but(0, 0, 1, 0)))]
    for role, masks in (("baseline", baselines), ("student", students)):
        folders += [artifact(store, role, seed, z=logits(mask)) for seed, mask in enumerate(masks)]
    return Comparison(folders, record(folders))


def by_class(table):
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_a_class_has_its_accuracy_and_what_was_repaired_and_spoiled(tmp_path):
    baselines = [right_but(5, 0, 3, k) for k in range(3)]
    students = [right_but(1, 2, 3, k) for k in range(3)]
    table = class_table(trio(tmp_path, students, baselines))
    rows = by_class(table)
    first = rows["class 0"]
    assert (first["images"], first["teacher %"], first["baseline %"]) == ("25", "100.00", "80.00 ± 0.00")
    assert (first["student %"], first["Δ"], first["repaired"], first["spoiled"]) == (
        "96.00 ± 0.00",
        "+16.00",
        "4.0",
        "0.0",
    )
    assert (rows["class 1"]["Δ"], rows["class 1"]["spoiled"]) == ("-8.00", "2.0")
    assert rows["class 2"]["teacher %"] == "96.00" and rows["class 2"]["Δ"] == "+0.00"
    assert rows["class 0"]["student takes it for"] == "class 1 (1.0)"  # the given networks err by one class
    assert rows["class 3"]["student takes it for"] == "class 0 (1.0)"


def test_the_sentence_names_what_is_repaired_and_spoiled_where_seeds_agree(tmp_path):
    baselines = [right_but(5 + k % 3, 0, 3, 1 + k % 2) for k in range(6)]
    students = [right_but(1, 4 - k % 2, 3, 2 - k % 2) for k in range(6)]
    sentence = class_table(trio(tmp_path, students, baselines)).titles[0]
    assert sentence == (
        "Distillation repairs class 0 (+20.00) and spoils class 1 (-14.00), by intervals that are not corrected "
        "for the number of classes."
    )


@pytest.mark.parametrize("seeds", [3, 6])
def test_too_few_seeds_and_a_lost_one_indicate_no_more(tmp_path, seeds):
    made = [artifact(tmp_path, "teacher")]
    made += [artifact(tmp_path, "baseline", k, z=logits(right_but(5 + k % 3, 0, 3, 1))) for k in range(seeds)]
    made += [artifact(tmp_path, "student", k, z=logits(right_but(1, 4 - k % 2, 3, 1))) for k in range(seeds)]
    made += [artifact(tmp_path, "baseline", 6, **LOST)] if seeds == 6 else []
    table = class_table(Comparison(made, record(made)))
    assert table.titles[0].startswith("Distillation seems to repair class 0 (+20.00) and seems to spoil class 1")
    assert table.titles[0].endswith("number of classes, indicative.")


def test_differences_that_are_equal_between_seeds_are_not_those_of_one_seed(tmp_path):
    sentence = class_table(trio(tmp_path, [right_but(0, 0, 0, 0)] * 2, [right_but(9, 9, 9, 9)] * 2)).titles[0]
    assert "one seed" not in sentence and "repairs no class and spoils no class" in sentence


def test_where_every_baseline_diverged_the_classes_of_the_student_stand_alone(tmp_path):
    made = [*seeds_of(tmp_path, "baseline", [None, None]), *seeds_of(tmp_path, "student", [90, 91])]
    table = class_table(Comparison(made, record(made)))
    assert list(table.columns) == ["class", "images", "student %", "student takes it for"]


def test_the_csv_holds_numbers_and_no_names_of_types(tmp_path):
    text = class_table(trio(tmp_path, [right_but(1, 1, 1, 1)] * 3, [right_but(2, 2, 2, 2)] * 3)).to_csv()
    assert "np." not in text and text.splitlines()[1].startswith("class 0,25,100.0,")


def test_one_seed_says_nothing_of_single_classes(tmp_path):
    sentence = class_table(trio(tmp_path, [right_but(0, 0, 0, 0)], [right_but(9, 9, 9, 9)])).titles[0]
    assert sentence == "Accuracy per class; one seed cannot separate an effect from chance."


def test_without_baseline_or_teacher_the_columns_are_left_out(tmp_path):
    folders = seeds_of(tmp_path, "student", [90, 91])
    table = class_table(Comparison(folders, record(folders)))
    assert list(table.columns) == ["class", "images", "student %", "student takes it for"]
    baseline = seeds_of(tmp_path, "baseline", [90])
    assert class_table(Comparison(baseline, record(baseline))) is None


def test_of_several_students_each_has_its_lines(tmp_path):
    folders, cast = two_students(tmp_path, [(90, 91, 92), (70, 71, 72)])
    table = class_table(Comparison(folders, record(folders, cast=cast)))
    assert [row[0] for row in table.rows] == ["small"] * 4 + ["tiny"] * 4
    assert len(table.titles) == 2


@pytest.mark.parametrize("order", [1, -1])
def test_seeds_are_paired_whatever_their_order(tmp_path, order):
    masks = [right_but(k, 0, 0, 0) for k in (1, 5, 9)]
    folders = [artifact(tmp_path, "baseline", seed, z=logits(mask)) for seed, mask in enumerate(masks)]
    folders += [artifact(tmp_path, "student", seed, z=logits(mask)) for seed, mask in list(enumerate(masks))[::order]]
    rows = by_class(class_table(Comparison(folders, record(folders))))
    assert rows["class 0"]["Δ"] == "+0.00" and rows["class 0"]["repaired"] == "0.0"
