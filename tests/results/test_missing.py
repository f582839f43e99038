"""The table of what networks know of classes that were left out, from stored logits."""

import numpy as np
import pytest

from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.missing import missing_table
from kdrun.results.comparison.table import comparison_table
from tests.results.given import CLASSES, LABELS, artifact, record

OMITTED = {"transfer": {"omit_classes": [3]}}


def knows(low, right):
    """Logits that are right on all other classes, and on class 3 of so many once `low` is made up for."""
    z = 10.0 * np.eye(CLASSES)[LABELS]
    own = np.flatnonzero(LABELS == 3)
    z[own] = [0, 5, 0, 5 - low]
    z[own[right:], 3] = -50.0
    z[LABELS != 3, 3] = -30.0
    return z.astype(np.float32)


@pytest.fixture
def folders(tmp_path):
    """A teacher, and a baseline and a student of two seeds each; class 3 has 25 of 100 images."""

    def make(*, val=True, **more):
        kept = {"val_z": knows(2.0, 20)} if val else {}
        return [
            artifact(tmp_path, "teacher", z=knows(-1.0, 25), **({"val_z": knows(-1.0, 25)} if val else {}), **more),
            *(artifact(tmp_path, "baseline", s, z=knows(2.0, 0), **kept, **more) for s in (0, 1)),
            *(artifact(tmp_path, "student", s, z=knows(2.0, 20 + s), **kept, **more) for s in (0, 1)),
        ]

    return make


def table(folders, config=OMITTED, **more):
    return missing_table(Comparison(folders, record(folders, config=config, **more)))


def rows(result):
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def test_accuracies_before_and_after_and_the_offset_are_those_by_hand(folders):
    teacher, baseline, student = rows(table(folders()))
    # from 2 on class 3 is answered on 20 validation images of it, from 40 on in the place of others: the middle is 21
    assert student | {"model": ""} == {
        "role": "student", "model": "", "missing %": "0.00 ± 0.00", "with offset %": "82.00 ± 2.83",
        "all %": "75.00 ± 0.00", "all, with offset %": "95.50 ± 0.71", "offset": "+21.00 ± 0.00", "n": "2",
    }  # fmt: skip
    assert (baseline["missing %"], baseline["with offset %"]) == ("0.00 ± 0.00", "0.00 ± 0.00")
    assert (teacher["missing %"], teacher["with offset %"], teacher["offset"]) == ("100.00", "100.00", "+0.00")


def test_the_verdict_begins_with_it_in_words_and_the_notes_say_what_was_done(folders):
    rows, made = table(folders()), folders()
    comparison = Comparison(made, record(made, config=OMITTED))
    first, second = comparison.verdict().parts
    assert first == (
        "Never shown class class 3, the student gets 82.00 ± 2.83% of these test images right with one offset chosen "
        "on validation, 0.00 ± 0.00% without it; the baseline 0.00 ± 0.00% and 0.00 ± 0.00%."
    )
    assert second.startswith("No significant difference: ")
    assert comparison_table(comparison).title.parts[0] == first
    assert rows.title == "Test images of class class 3, left out of the transfer set"
    notes = "\n".join(rows.notes)
    assert "the 25 test images of class class 3" in notes and "offset and epoch are chosen with them" in notes
    assert "− baseline on the missing, with offset, paired by seed: +82.00, 95% [+56.59, +107.41], n = 2" in notes


def test_classes_are_named_by_number_or_by_word(folders):
    by_word = table(folders(), config={"transfer": {"omit_classes": ["class 3"]}})
    assert rows(by_word) == rows(table(folders()))
    several = table(folders(), config={"transfer": {"omit_classes": [3, "class 0"]}})
    assert "Test images of classes class 0 and class 3" in several.title
    assert "the 50 test images" in several.notes[0]


@pytest.mark.parametrize("config", [{}, {"transfer": {"omit_classes": []}}])
def test_without_classes_left_out_there_is_no_table(folders, config):
    assert table(folders(), config=config) is None


def test_without_validation_images_of_these_classes_there_is_no_table(folders):
    assert table(folders(val=False)) is None
    known = LABELS.copy()
    known[known == 3] = 0
    assert table(folders(labels=known)) is None


def test_of_several_students_each_has_its_sentence(folders, tmp_path):
    made = folders()
    cast = [("teacher", "teacher", "")] + [("baseline", "baseline", "a")] * 2 + [("student", "student", "a")] * 2
    made += [artifact(tmp_path, "student", 0, z=knows(2.0, 10), val_z=knows(2.0, 20), model="b")]
    cast.append(("student", "student", "b"))
    first, second, *_ = Comparison(made, record(made, config=OMITTED, cast=cast)).verdict().parts
    assert first.startswith("a: Never shown") and second.startswith("b: Never shown")
    result = table(made, cast=cast)
    assert [row["with offset %"] for row in rows(result)][-1] == "40.00"
