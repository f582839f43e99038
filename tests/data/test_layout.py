import logging
import os

import pytest

from kdrun.data import layout, listing
from tests.data.given import picture, tree, zipped


def classified(*places, **changed):
    return layout.classified(listing.roots([str(place) for place in places], "dataset.root"), **changed)


def test_an_empty_folder_is_an_error_that_says_what_is_needed(tmp_path):
    with pytest.raises(ValueError, match=r"no train/ and no test/ .*train/CLASS/\* and test/CLASS/\*.*found nothing"):
        classified(tmp_path)


def test_a_folder_without_a_test_part_is_an_error_that_says_what_is_there_and_what_to_type(tmp_path):
    tree(tmp_path, parts=("train", "tested"))
    wanted = r"no test/ with a folder per class inside; .*found tested, train; or type dataset.test_fraction=0.2"
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
    with pytest.raises(ValueError, match=r"no image in train/eel \(1 other files; needs PNG, JPEG, WebP, BMP"):
        classified(tmp_path)


def test_a_single_class_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"a single class \(ant\)"):
        classified(tree(tmp_path, classes=("ant",)))


def test_an_unprintable_class_name_is_refused_and_any_printable_one_is_fine(tmp_path):
    hostile = "<b>=cmd()_&% 'ü"
    assert classified(tree(tmp_path / "fine", classes=(hostile, "b"))).classes == (hostile, "b")
    with pytest.raises(ValueError, match=r"class 'a\\nb' has unprintable characters"):
        classified(tree(tmp_path / "wrong", classes=("a\nb", "b")))


def names(result):
    """The images by part, by the names of their files alone."""
    return {part: [source.member.rpartition("/")[2] for source in own] for part, own in result.sources.items()}


@pytest.mark.parametrize(
    "called",
    [("Train", "VALID", "Test"), ("training", "validation", "testing"), ("TRAIN", "Val", "TESTING")],
)
def test_the_usual_names_of_the_parts_are_understood_in_any_letter_case_and_said(tmp_path, caplog, called):
    plain = classified(tree(tmp_path / "plain", parts=("train", "val", "test")))
    with caplog.at_level(logging.INFO):
        layout = classified(tree(tmp_path / "other", parts=called))
    assert (
        names(layout) == names(plain) and layout.labels == plain.labels and list(layout.sources) == list(plain.sources)
    )
    assert f"{called[0]}/ is used as train/" in caplog.text and f"{called[2]}/ is used as test/" in caplog.text
    assert len(caplog.records) == 1


def test_usual_names_are_taken_without_a_word(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        classified(tree(tmp_path, parts=("train", "val", "test")))
    assert not caplog.records


def test_two_folders_that_would_be_one_part_are_refused(tmp_path):
    tree(tmp_path, parts=("train", "test", "val", "valid"))
    with pytest.raises(ValueError, match=r"val/ and valid/ would both be val/; rename one"):
        classified(tmp_path)


@pytest.mark.parametrize("archived", [False, True])
def test_a_folder_around_everything_is_looked_into_and_said(tmp_path, caplog, archived):
    tree(tmp_path / "top" / "my images", parts=("Train", "test"))
    (tmp_path / "top" / "README.md").write_text("about")
    place = zipped(tmp_path / "top", tmp_path / "all.zip") if archived else tmp_path / "top"
    with caplog.at_level(logging.INFO):
        layout = classified(place)
    assert {part: len(own) for part, own in layout.sources.items()} == {"train": 6, "test": 6}
    assert all(source.member.startswith("my images/") for own in layout.sources.values() for source in own)
    assert "everything is in my images/; Train/ is used as train/" in caplog.text
    assert "left out 1 file: 1 .md" in caplog.text


def test_a_folder_of_an_archive_for_each_part_is_taken_as_these_with_or_without_the_part_inside(tmp_path, caplog):
    root = tree(tmp_path / "images", parts=("train", "val", "test"))
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    for part in ("train", "val", "test"):
        zipped(root / part, tmp_path / "without" / f"{part}.zip")
        (tmp_path / part).mkdir()
        (root / part).rename(tmp_path / part / part)
        zipped(tmp_path / part, tmp_path / "with" / f"pets-{part}.zip")
    with caplog.at_level(logging.INFO):
        one, two = classified(tmp_path / "with"), classified(tmp_path / "without")
    assert names(one) == names(two) and one.labels == two.labels
    assert {part: len(own) for part, own in one.sources.items()} == {"train": 6, "val": 6, "test": 6}
    assert "pets-test.zip, pets-train.zip, pets-val.zip are combined" in caplog.text
    assert "train.zip is used as train/" in caplog.text
    (tmp_path / "without" / "old-train.zip").write_bytes((tmp_path / "without" / "train.zip").read_bytes())
    with pytest.raises(
        ValueError, match=r"which of old-train.zip, test.zip, .* are meant\? Type them: 'dataset.root=\["
    ):
        classified(tmp_path / "without")


def test_a_part_may_have_a_class_that_is_called_like_a_part(tmp_path):
    layout = classified(tree(tmp_path, classes=("test", "tram")))
    assert layout.classes == ("test", "tram") and len(layout.sources["test"]) == 6
    apart = classified(tmp_path / "train", tmp_path / "test")
    assert apart.classes == ("test", "tram") and names(apart) == names(layout)


def test_images_below_the_folder_of_a_class_are_of_that_class_and_it_is_said(tmp_path, caplog):
    tree(tmp_path)
    (tmp_path / "train" / "cat" / "more" / "still").mkdir(parents=True)
    picture(7).save(tmp_path / "train" / "cat" / "more" / "still" / "deep.png")
    with caplog.at_level(logging.INFO):
        layout = classified(tmp_path)
    assert names(layout)["train"] == ["0.png", "1.png", "2.png", "deep.png", "0.png", "1.png", "2.png"]
    assert layout.labels["train"] == [0] * 4 + [1] * 3
    assert "images in a folder below a class belong to that class, e.g. train/cat/more/still/" in caplog.text


def test_what_is_left_out_is_counted_by_reason_in_one_line_and_listed_for_the_log_file(tmp_path, caplog):
    tree(tmp_path)
    for name in ("train/cat/a.txt", "train/dog/b.txt", "test/cat/c.HEIC", "labels", "train/.d.png"):
        (tmp_path / name).write_bytes(b"x")
    picture(1).save(tmp_path / "train" / "loose.png")
    (tmp_path / "spare").mkdir()
    picture(1).save(tmp_path / "spare" / "e.png")
    with caplog.at_level(logging.DEBUG):
        assert len(classified(tmp_path).sources["train"]) == 6
    warned, listed = caplog.records
    assert warned.getMessage() == (
        "dataset.root: left out 7 files: 2 .txt, 1 .heic, 1 hidden, 1 outside of train/, val/ and test/, "
        "1 without a class, 1 without a suffix"
    )
    assert listed.levelno == logging.DEBUG
    assert f"{tmp_path}/train/loose.png: without a class" in listed.getMessage().splitlines()
    assert len(listed.getMessage().splitlines()) == 8


def test_a_link_that_leads_back_is_not_followed_and_said(tmp_path, caplog):
    tree(tmp_path)
    (tmp_path / "train" / "cat" / "again").symlink_to(tmp_path / "train")
    assert len(classified(tmp_path).sources["train"]) == 6
    assert "train/cat/again: links to a folder that contains it, and is not followed" in caplog.text


def test_links_that_lead_in_a_circle_end_and_no_image_is_taken_twice(tmp_path, caplog):
    tree(tmp_path)
    for name, other in (("cat", "dog"), ("dog", "cat")):
        inner = tmp_path / "train" / name / "inner"
        inner.mkdir()
        picture(5).save(inner / "own.png")
        (inner / "over").symlink_to(tmp_path / "train" / other / "inner")
    sources = classified(tmp_path).sources["train"]
    assert sorted(s.member for s in sources if "cat/inner" in s.member) == [
        "train/cat/inner/over/own.png",  # followed once, as a link that leads elsewhere is
        "train/cat/inner/own.png",
    ]
    assert "over/over: links to a folder that contains it, and is not followed (and 1 more)" in caplog.text


def test_folders_that_all_link_to_each_other_are_refused_at_once(tmp_path):
    folders = [tmp_path / str(i) for i in range(12)]
    for folder in folders:
        folder.mkdir()
    for folder in folders:
        for other in folders:
            (folder / f"to{other.name}").symlink_to(other)
    with pytest.raises(ValueError, match=r"links lead to .* in more than 100 ways; remove some"):
        classified(tmp_path)


def test_a_folder_that_two_parts_link_to_is_read_for_both(tmp_path):
    tree(tmp_path, parts=("train",))
    (tmp_path / "val").symlink_to(tmp_path / "train")
    (tmp_path / "test").symlink_to("train")
    assert {part: len(inside) for part, inside in classified(tmp_path).sources.items()} == {
        "train": 6, "val": 6, "test": 6,
    }  # fmt: skip


def test_what_is_neither_a_folder_nor_a_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "all.zip")
    for place in (str(tmp_path / "all.zip"), "/dev/zero"):
        with pytest.raises(ValueError, match=rf"dataset.root={place}: is neither a regular file nor a folder"):
            listing.roots(place, "dataset.root")


def test_folders_of_classes_without_a_split_are_refused_with_what_to_type_and_taken_with_it(tmp_path):
    tree(tmp_path / "pets", parts=("",))
    for place in (tmp_path / "pets", zipped(tmp_path / "pets", tmp_path / "pets.zip")):
        with pytest.raises(
            ValueError, match=r"no train/ and no test/ .*found cat, dog; or type dataset.test_fraction=0.2"
        ):
            classified(place)
        assert classified(place, test_fraction=0.2).labels == {"train": [0, 0, 0, 1, 1, 1]}


def test_a_class_called_train_beside_others_is_a_class(tmp_path):
    assert classified(tree(tmp_path, classes=("bus", "train"), parts=("",)), test_fraction=0.2).classes == (
        "bus",
        "train",
    )


def test_a_training_part_alone_has_its_test_images_drawn_and_one_with_a_test_part_is_refused(tmp_path):
    tree(tmp_path, parts=("train",))
    assert list(classified(tmp_path, test_fraction=0.2).sources) == ["train"]
    tree(tmp_path, parts=("Test",))
    with pytest.raises(ValueError, match=r"dataset.test_fraction=0.2: dataset.root=.* already has a test/; leave"):
        classified(tmp_path, test_fraction=0.2)


def test_what_could_be_read_in_two_ways_is_refused(tmp_path):
    tree(tmp_path / "a", parts=("train",))
    tree(tmp_path / "a", parts=("",), classes=("bus",))
    with pytest.raises(ValueError, match=r"is train/ a split, or a class like bus\? .*name dataset.root=.*/a/train if"):
        classified(tmp_path / "a", test_fraction=0.2)
    tree(tmp_path / "b", parts=("",), classes=("train", "test"))
    with pytest.raises(
        ValueError, match=r"the classes would be test, train, which are names of splits; needs train/CLASS"
    ):
        classified(tmp_path / "b", test_fraction=0.2)
    tree(tmp_path / "c", parts=("",))
    with pytest.raises(ValueError, match=r"/c has classes outside train/ and test/"):
        classified(tmp_path / "c", tree(tmp_path / "d"))
