"""A finished run is measured again and exported from another working folder, and after its images have moved."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Desk

QUICK = ["seeds=1", "device=cpu", "recipe=quick", "recipe.epochs=2"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A run on light and dark images, typed as dataset.root=photos in a folder of its own."""
    desk = Desk(tmp_path_factory.mktemp("there"))
    draw = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 4)):
        for name, low in (("dark", 0), ("light", 128)):
            for i in range(count):
                place = desk.folder / "photos" / part / name / f"{i}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw.integers(low, low + 128, (8, 8, 3), dtype=np.uint8)).save(place)
    desk.runs("train", "baseline", "dataset=folder", "dataset.root=photos", "student=mlp", *QUICK)
    return desk


def accuracy(desk, *words):
    """Test accuracy as evaluate prints it, and its change against the record."""
    (row,) = re.findall(r"^baseline .*", desk.runs("evaluate", *words), re.M)
    *_, test, _, change = row.split()
    return float(test), float(change)


def test_a_relative_path_in_a_runs_record_works_from_another_working_folder(photos, desk):
    first = accuracy(photos, "latest")
    assert accuracy(desk, "latest", f"outputs={photos.folder / 'outputs'}") == first
    assert first[1] == 0


def test_moved_images_are_named_by_dataset_root_and_held_against_the_record(photos, desk):
    shutil.copytree(photos.folder, desk.folder / "copy", symlinks=True)
    copy = Desk(desk.folder / "copy")
    before = accuracy(copy, "latest")
    shutil.move(copy.folder / "photos", desk.folder / "elsewhere")
    shutil.move(photos.folder / "photos", photos.folder / "hidden")
    try:
        assert "Type dataset.root=DIR" in copy.refuses("evaluate", "latest")
        assert accuracy(copy, "latest", "dataset.root=../elsewhere") == before
        exported = copy.runs("export", "latest", "role=baseline", "to=out", "dataset.root=../elsewhere")
        assert re.search(r"images classified differently +– +0 of 8", exported)
    finally:
        shutil.move(photos.folder / "hidden", photos.folder / "photos")
    Image.new("RGB", (8, 8)).save(desk.folder / "elsewhere" / "test" / "light" / "0.png")
    for verb in (["evaluate"], ["export", "role=baseline"]):
        output = copy.refuses(verb[0], "latest", *verb[1:], "dataset.root=../elsewhere")
        assert ("trained on" in output and "has changed since" in output) or "name the original ones" in output


def test_a_root_for_images_without_files_is_refused(trained):
    assert "digits has no files" in trained.refuses("evaluate", "latest", "dataset.root=x")
