import os
import zipfile

import pytest

from kdrun.data import layout, listing
from tests.data.given import tree, zipped


def classified(*places):
    return layout.classified(listing.roots([str(place) for place in places], "dataset.root"))


def test_a_missing_folder_is_named_with_one_that_is_near(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(ValueError, match=r"there is no flower in .* Did you mean flowers\?"):
        classified(tmp_path / "flower")


@pytest.mark.parametrize("keep", [0, 1, 0.5, -1])
def test_a_truncated_archive_is_named(tmp_path, keep):
    archive = zipped(tree(tmp_path / "images"), tmp_path / "all.zip")
    content = archive.read_bytes()
    cut = int(len(content) * keep) if isinstance(keep, float) else keep
    archive.write_bytes(content[:cut])
    with pytest.raises(ValueError, match=r"all.zip: not a .zip archive, or a truncated one"):
        classified(archive)


@pytest.mark.parametrize("member", ["../x.png", "/etc/x.png", "train/../../x.png", "C:/x.png", "train\\cat\\x.png"])
def test_an_archive_with_a_member_that_escapes_is_refused(tmp_path, member):
    archive = zipped(tree(tmp_path / "images"), tmp_path / "all.zip")
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr(member, b"x")
    with pytest.raises(ValueError, match=r"all.zip: refused, since its member .*outside"):
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
    with pytest.raises(ValueError, match=r"it contains 'train/cat/0.png' twice"):
        classified(archive)


@pytest.mark.parametrize("root", [[], "", 3, [None], {"a": 1}])
def test_what_is_no_path_is_refused(root):
    with pytest.raises(ValueError, match=r"dataset.root=.*: name a folder or .zip archive"):
        listing.roots(root, "dataset.root")


def test_of_what_lies_beside_only_folders_and_archives_are_suggested(tmp_path):
    (tmp_path / "photos.log").touch()
    tree(tmp_path / "fotos")
    with pytest.raises(ValueError, match=r"there is no photos in .*Did you mean fotos\? Type dataset.root=DIR"):
        listing.roots(str(tmp_path / "photos"), "dataset.root")


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
    with pytest.raises(ValueError, match=r"transfer.extra=.*: no image found"):
        (tmp_path / "none").mkdir()
        listing.images_in([str(tmp_path / "none")], "transfer.extra")
