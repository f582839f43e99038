import logging
import os

import numpy as np
import pytest

from kdrun.data import layout, listing
from tests.data.given import picture, tree, zipped


def classified(*places, **changed):
    return layout.classified(listing.roots([str(place) for place in places], "dataset.root"), **changed)


def described(found, root):
    """Parts, classes and the members below `root` by part."""
    return {part: [source.member for source in own] for part, own in found.sources.items()}


def test_an_empty_folder_is_an_error_that_says_what_is_needed(tmp_path):
    with pytest.raises(ValueError, match=r"no train/ and no test/ .*train/CLASS/\* and test/CLASS/\*.*found nothing"):
        classified(tmp_path)


def test_a_folder_without_a_test_part_is_an_error_that_says_what_is_there_and_what_to_type(tmp_path):
    tree(tmp_path, parts=("train", "tested"))
    (tmp_path / "tested").rename(tmp_path / "samples.d")
    for file in (tmp_path / "samples.d").rglob("*.png"):
        file.unlink()
    wanted = r"no test/ with a folder per class inside; .*found samples.d, train; or type dataset.test_fraction=0.2"
    with pytest.raises(ValueError, match=wanted):
        classified(tmp_path)


def test_classes_that_differ_between_parts_are_named(tmp_path):
    tree(tmp_path, classes=("ant", "bee"))
    tree(tmp_path, classes=("cow",), parts=("train",))
    with pytest.raises(ValueError, match=r"test/ has no cow"):
        classified(tmp_path)


def test_a_class_missing_from_val_is_named(tmp_path):
    tree(tmp_path, classes=("ant", "bee"))
    tree(tmp_path, classes=("ant",), parts=("val",))
    with pytest.raises(ValueError, match=r"val/ has no bee"):
        classified(tmp_path)


def test_an_empty_class_is_named_with_what_lies_in_it_instead(tmp_path):
    tree(tmp_path)
    (tmp_path / "train" / "eel").mkdir()
    (tmp_path / "test" / "eel").mkdir()
    picture(1).save(tmp_path / "test" / "eel" / "a.png")
    (tmp_path / "train" / "eel" / "a.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no image in train/eel \(1 other files, though: needs PNG, JPEG, WebP, BMP"):
        classified(tmp_path)


def test_a_single_class_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"a single class \(ant\)"):
        classified(tree(tmp_path, classes=("ant",)))


def test_an_unprintable_class_name_is_refused_and_any_printable_one_is_fine(tmp_path):
    hostile = "<b>=cmd()_&% 'ü"
    assert classified(tree(tmp_path / "fine", classes=(hostile, "b"))).classes == (hostile, "b")
    with pytest.raises(ValueError, match=r"class 'a\\nb' has unprintable characters"):
        classified(tree(tmp_path / "wrong", classes=("a\nb", "b")))