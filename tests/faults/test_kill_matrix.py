"""Every way to train, killed at every batch and in every write, and once more in the resumed run: bit for bit the same.

By default a part of it runs: one chain of kills for two of the ways.
"""

import shutil

import pytest

from tests.faults.conftest import SMALL, Desk

SITES = ("after_batch", "in_write", "before_rename", "after_rename", "before_result")
ALONE = [w for w in SMALL if not w.startswith("teacher")]
BORN_AGAIN = ["teacher=mlp", "teacher.hidden=[16]", "teacher.dropout=0.2"]
WAYS = {  # each has 3 epochs of 5 batches, with augmentation, dropout and averaged weights
    "plain": ["train", "baseline", *ALONE],
    "cohort of three": ["distill", "-m", "T=1,4", *SMALL],
    "banks": ["distill", "loss=[kd,crd]", "loss.crd.negatives=20", *SMALL],
    "peers": ["distill", "loss=dml", *ALONE],
    "generations": ["distill", "generations=2", *BORN_AGAIN, *[w for w in SMALL if not w.startswith("student")]],
    "streaming": [
        "train", "baseline", "dataset=folder", "dataset.root=images", "dataset.max_resident_gb=0",
        *[w for w in ALONE if not w.startswith("transfer")],
    ],
}  # fmt: skip
QUICK = {  # the places of the first kill and of the second, which comes in the resumed run
    "cohort of three": ("after_batch:7", "in_write:9"),
    "banks": ("after_batch:8", "before_result:1"),
}


def words(way):
    """Return the command of a way to train, without the pictures."""
    return [*WAYS[way], "report=false"]


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Return a function from a way to train to the desk on which it ended undisturbed, each trained once."""
    desks = {}

    def desk_of(way):
        if way not in desks:
            desks[way] = Desk(tmp_path_factory.mktemp(way.replace(" ", "_")))
            if way == "streaming":
                write_images(desks[way].folder / "images")
            desks[way].type(*words(way))
        return desks[way]

    return desk_of


def write_images(root):
    """Write 140 images of two classes to train on, and 8 to test on."""
    import numpy as np
    from PIL import Image

    draws = np.random.default_rng(0)
    for part, count in (("train", 78), ("test", 4)):
        for name in ("a", "b"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def beginning(whole, folder):
    """Return a desk with what a way to train begins with: its images, and its teacher, trained."""
    desk = Desk(folder)
    for path in [*whole.folder.glob("images"), *whole.outputs.glob("store/teacher-*")]:
        shutil.copytree(path, folder / path.relative_to(whole.folder))
    return desk


def killed(desk, typed, fault):
    """Return whether a command was killed at that place; if it ends before, it must end well."""
    command = desk.start(*typed, KDRUN_FAULT=f"{fault}:kill")
    code = command.wait()
    assert code in (-9, 0), command.output()
    return code == -9


def finish_and_compare(desk, typed, whole):
    """Type the command once more, without a fault, and hold all of its trainings against the undisturbed ones."""
    desk.type(*typed)
    assert desk.results() == whole.results()
    assert not list(desk.outputs.glob("store/*/checkpoint")) and not list(desk.outputs.glob("store/**/.*.tmp"))
    for entry in desk.results().values():
        epochs = [int(row[0]) for row in entry["history"][1:]]
        assert epochs == list(range(1, len(epochs) + 1))  # no epoch twice


@pytest.mark.parametrize("way", QUICK)
def test_killed_and_killed_again_each_way_to_train_ends_as_if_undisturbed(whole, way, tmp_path):
    desk = beginning(whole(way), tmp_path)
    assert all([killed(desk, words(way), fault) for fault in QUICK[way]])
    finish_and_compare(desk, words(way), whole(way))


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("way", WAYS)
def test_killed_at_every_place_each_way_to_train_ends_as_if_undisturbed(whole, way, site, tmp_path):
    number = 1
    while True:
        desk = beginning(whole(way), tmp_path / str(number))
        if not killed(desk, words(way), f"{site}:{number}"):
            break
        killed(desk, words(way), f"{site}:{number // 2 + 1}")
        finish_and_compare(desk, words(way), whole(way))
        number += 1
    assert number > {"after_batch": 15, "before_result": 1}.get(site, 10)
