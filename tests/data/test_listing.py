import os
import zipfile

import pytest

from kdrun.data import listing
from tests.data.given import picture, tree, zipped


def classified(*places):
    return listing.classified(listing.roots([str(place) for place in places], "dataset.root"))


def test_a_missing_folder_is_named_with_one_that_is_near(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(ValueError, match=r"there is no flower in .* Did you mean flowers\?"):
        classified(tmp_path / "flower")


def test_an_empty_folder_is_an_error_that_says_what_is_needed(tmp_path):
    with pytest.raises(ValueError, match=r"no train/ and no test/ .*train/CLASS/\* and test/CLASS/\*.*found nothing"):
        classified(tmp_path)


def test_a_folder_without_a_test_part_is_an_error_that_says_what_is_there(tmp_path):
    tree(tmp_path, parts=("train", "testing"))
    with pytest.raises(ValueError, match=r"no test/ with a folder per class inside; .*found testing, train"):
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
    (tmp_path / "train" / "eel" / "a.bmp").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no image in train/eel \(1 other files, though: needs PNG, JPEG or WebP"):
        classified(tmp_path)


def test_a_single_class_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"a single class \(ant\)"):
        classified(tree(tmp_path, classes=("ant",)))


def test_an_unprintable_class_name_is_refused_and_any_printable_one_is_fine(tmp_path):
    hostile = "<b>=cmd()_&% 'ü"
    assert classified(tree(tmp_path / "fine", classes=(hostile, "b"))).classes == (hostile, "b")
    with pytest.raises(ValueError, match=r"class 'a\\nb' has unprintable characters"):
        classified(tree(tmp_path / "wrong", classes=("a\nb", "b")))


@pytest.mark.parametrize("keep", [0, 1, 0.5, -1])
def test_a_truncated_archive_is_named(tmp_path, keep):
    archive = zipped(tree(tmp_path / "images"), tmp_path / "all.zip")
    content = archive.read_bytes()
    cut = int(len(content) * keep) if isinstance(keep, float) else keep
    archive.write_bytes(content[:cut])
    with pytest.raises(ValueError, match=r"all.zip: no .zip archive, or a truncated one"):
        classified(archive)


@pytest.mark.parametrize("member", ["../x.png", "/etc/x.png", "train/../../x.png", "C:/x.png", "train\\cat\\x.png"])
def test_an_archive_with_a_member_that_escapes_is_refused(tmp_path, member):
    archive = zipped(tree(tmp_path / "images"), tmp_path / "all.zip")
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr(member, b"x")
    with pytest.raises(ValueError, match=r"all.zip: refused, because its member .*outside"):
        classified(archive)


def test_an_archive_with_a_link_is_refused(tmp_path):
    archive = zipped(tree(tmp_path / "images"), tmp_path / "all.zip")
    info = zipfile.ZipInfo("train/cat/link.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match=r"is a symbolic link"):
        classified(archive)


def test_an_archive_with_the_same_member_twice_is_refused(tmp_path):
    archive = zipped(tree(tmp_path / "images"), tmp_path / "all.zip")
    with pytest.warns(UserWarning, match=r"Duplicate name"), zipfile.ZipFile(archive, "a") as out:
        out.writestr("train/cat/0.png", b"x")
    with pytest.raises(ValueError, match=r"'train/cat/0.png' stands in it twice"):
        classified(archive)


@pytest.mark.parametrize("root", [[], "", 3, [None], {"a": 1}])
def test_what_is_no_path_is_refused(root):
    with pytest.raises(ValueError, match=r"dataset.root=.*: name a folder or .zip archive"):
        listing.roots(root, "dataset.root")


def test_a_home_folder_is_found_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    tree(tmp_path / "images")
    assert listing.roots("~/images", "dataset.root") == [str(tmp_path / "images")]


def test_images_without_classes_are_found_flat_and_nested(tmp_path):
    tree(tmp_path, count=1)
    (tmp_path / "top.jpeg").write_bytes(b"x")
    names = [source.member for source in listing.images_in([str(tmp_path)], "transfer.extra")]
    assert (
        names == sorted(os.path.relpath(p, tmp_path) for p in tmp_path.rglob("*.*") if p.is_file()) and len(names) == 5
    )
    with pytest.raises(ValueError, match=r"transfer.extra=.*: no image in it"):
        (tmp_path / "none").mkdir()
        listing.images_in([str(tmp_path / "none")], "transfer.extra")
