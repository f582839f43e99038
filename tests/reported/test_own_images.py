"""Own images as people have them: parts by other names, archives, no split, photographs on their side, broken files.

Where the images are the same, the right value is the fingerprint that they have in plain folders.
"""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.cli.conftest import Desk
from tests.data.given import picture, tree, zipped

SMALL = ("seeds=1", "device=cpu", "dataset.val_fraction=0", "student=mlp")


def planned(desk, root, *words):
    """The fingerprint of the training that a command would do, the number of its images, and all that it says."""
    output = desk.runs("train", "baseline", "plan=true", "dataset=folder", f"dataset.root={root}", *SMALL, *words)
    match = re.search(r"^baseline +mlp +0 +(\w{12}) +[\d.]+ K +(\d+) ", output, re.MULTILINE)
    return match[1], int(match[2]), output


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The fingerprint of twelve images in folders of which there is nothing to say."""
    desk = Desk(tmp_path_factory.mktemp("plain"))
    fingerprint, count, output = planned(desk, tree(desk.folder / "images", parts=("train", "test")))
    assert count == 6 and "dataset.root:" not in output
    return fingerprint


def test_parts_by_other_names_in_an_archive_with_a_folder_around_are_understood_and_said(desk, plain):
    tree(desk.folder / "images" / "pets", parts=("Train", "testing"))
    fingerprint, _, output = planned(desk, zipped(desk.folder / "images", desk.folder / "pets.zip"))
    assert fingerprint == plain
    assert "everything is in pets/; Train/ is used as train/; testing/ is used as test/\n" in output


def test_a_folder_that_holds_an_archive_for_each_part_is_understood_and_said(desk, plain):
    tree(desk.folder / "images")
    for part in ("train", "test"):
        zipped(desk.folder / "images" / part, desk.folder / f"{part}.zip")
    (desk.folder / "images").rename(desk.folder / ".images")
    fingerprint, _, output = planned(desk, desk.folder)
    assert fingerprint == plain and "test.zip, train.zip are combined" in output


def test_images_below_a_class_count_and_what_is_left_out_is_said_in_a_line_and_listed_in_the_log(desk):
    root = tree(desk.folder / "images")
    (root / "train" / "cat" / "more").mkdir()
    picture(7).save(root / "train" / "cat" / "more" / "7.bmp")
    for name in ("cat/a.txt", "dog/b.txt", "dog/c.heic"):
        (root / "train" / name).write_bytes(b"x")
    picture(8).save(root / "test" / "loose.png")
    recipe = ("recipe=quick", "recipe.epochs=1")
    output = desk.runs(
        "train", "baseline", "dataset=folder", f"dataset.root={root}", *SMALL, *recipe, KDRUN_REPORT="false"
    )
    assert "dataset.root: left out 4 files: 2 .txt, 1 .heic, 1 without a class\n" in output and "b.txt" not in output
    (log,) = (desk.folder / "outputs" / "runs").rglob("kdrun.log")
    assert all(f"{root}/{n}: " in log.read_text() for n in ("train/dog/b.txt", "train/dog/c.heic", "test/loose.png"))
    (result,) = (desk.folder / "outputs" / "store").rglob("result.json")
    assert json.loads(result.read_text())["train_images"] == 7


def test_classes_without_a_split_have_test_images_drawn_where_it_is_typed(desk):
    root = tree(desk.folder / "pets", count=10, parts=("",))
    output = desk.refuses("train", "baseline", "dataset=folder", f"dataset.root={root}")
    assert "found cat, dog; or type dataset.test_fraction=0.2, which draws test images from every class" in output
    first, count, output = planned(desk, root, "dataset.test_fraction=0.2")
    assert count == 16 and "4 of 20 images are drawn for testing (dataset.split_seed=0)" in output
    assert planned(desk, root, "dataset.test_fraction=0.2", "dataset.split_seed=1")[0] != first


def test_archives_of_cifars_images_serve_its_experiments(desk):
    for part in ("train", "test"):
        for label in range(100):
            (desk.folder / part / part / f"{label:02d}").mkdir(parents=True)
            Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(desk.folder / part / part / f"{label:02d}" / "a.png")
        zipped(desk.folder / part, desk.folder / f"cifar100-{part}.zip")
    archives = ",".join(str(desk.folder / f"cifar100-{part}.zip") for part in ("train", "test"))
    words = (
        "experiment=cifar100/resnet56_resnet20",
        f"dataset.root=[{archives}]",
        "seeds=1",
        "device=cpu",
        "plan=true",
    )
    output = desk.runs("train", "baseline", *words)
    assert re.search(r"^baseline +resnet20 +0 .* 100 +240 ", output, re.MULTILINE)


def test_a_photograph_on_its_side_is_read_upright_as_pillow_reads_it(desk, plain):
    root = tree(desk.folder / "images")
    lying = Image.Exif()
    lying[0x0112] = 6
    file = root / "train" / "cat" / "0.png"
    upright = Image.open(file).copy()
    upright.transpose(Image.Transpose.ROTATE_90).save(file, exif=lying)
    assert Image.open(file).size == upright.size[::-1]
    assert ImageOps.exif_transpose(Image.open(file)).tobytes() == upright.tobytes()
    assert planned(desk, root)[0] == plain


def test_files_that_are_no_images_are_named_at_once_and_left_out_on_request(desk, plain):
    root = tree(desk.folder / "images")
    (root / "train" / "cat" / "gone.png").symlink_to("nowhere.png")
    (root / "train" / "cat" / "folder.png").mkdir()
    (root / "train" / "dog" / "text.png").write_text("text")
    os.mkfifo(root / "test" / "dog" / "pipe.png")
    output = desk.refuses("train", "baseline", "dataset=folder", f"dataset.root={root}")
    assert "4 of 16 images cannot be decoded" in output and "dataset.on_bad_image=skip" in output
    assert "gone.png: a broken link, to nowhere.png" in output and "folder.png: Is a directory" in output
    assert "text.png: not a PNG" in output and "pipe.png: not a regular file" in output
    fingerprint, _, output = planned(desk, root, "dataset.on_bad_image=skip")
    assert fingerprint == plain and "4 of 16 images cannot be decoded and are left out" in output


def test_a_class_that_validation_lacks_and_test_images_that_were_trained_on_are_named(desk):
    root = tree(desk.folder / "images", count=1)
    for i in range(40):
        picture(500 + i).save(root / "train" / "cat" / f"{i}.png")
    picture(800).save(root / "train" / "dog" / "1.png")
    (root / "test" / "cat" / "copy.png").write_bytes((root / "train" / "cat" / "7.png").read_bytes())
    output = planned(desk, root, "dataset.val_fraction=0.1")[2]
    assert "validation has no image of 1 of 2 classes, e.g. dog (2 for training): " in output
    assert f"1 of 3 test images are also training images, e.g. {root}/test/cat/copy.png is {root}/train/cat/7" in output
