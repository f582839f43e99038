"""A file of weights that was trained for other classes or images is noticed before anything learns from it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import kdrun
from tests.cli.conftest import Desk

QUICK = ["seeds=1", "device=cpu", "recipe=quick", "recipe.epochs=2", "dataset=folder", "student=mlp", "teacher=mlp"]
SHIPPED = "shipped/model.safetensors"


def pictures(folder, dark, light, bright=0, parts=("train", "val", "test")):
    """Eight images a class to learn from, to choose on and to be tested on: 48 files."""
    draw = np.random.default_rng(0)
    for part in parts:
        for low, name in ((0, dark), (96, light)):
            for i in range(8):
                place = folder / part / name / f"{i}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw.integers(low + bright, low + bright + 96, (8, 8, 3), dtype=np.uint8)).save(place)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A network that tells dark a from light b, exported, and its bare weights, which say nothing of that."""
    desk = Desk(tmp_path_factory.mktemp("made"))
    for root, dark, light in (("first", "a", "b"), ("swapped", "b", "a"), ("others", "b", "c")):
        pictures(desk.folder / root, dark, light)
    pictures(desk.folder / "brighter", "a", "b", bright=60)
    pictures(desk.folder / "whole", "b", "a", parts=("train", "test"))
    recipe = ["recipe@teacher.recipe=quick", "teacher.recipe.epochs=20", "dataset=folder", "dataset.root=first"]
    output = desk.runs("train", "teacher", "teacher=mlp", "device=cpu", *recipe)
    assert "16 validation images of its own: dataset.val_fraction=0.1 holds out no others" in output
    desk.runs("export", "latest", "role=teacher", "to=shipped", "check=false")
    save_file(load_file(desk.folder / SHIPPED), desk.folder / "bare.safetensors")
    torch.save(load_file(desk.folder / SHIPPED), desk.folder / "bare.pt")
    return desk


def distill(root, *words):
    return ["distill", *QUICK, f"dataset.root={root}", *words]


def test_what_an_export_says_of_its_classes_is_held_against_the_data(made):
    (stored,) = (made.folder / "outputs/store").glob("teacher-*/model.safetensors")
    output = made.refuses(*distill("others", "-m", f"teacher.from={SHIPPED},{stored}", "plan=true"))
    for file in (SHIPPED, stored):
        assert f"teacher.from={file}: it has 2 classes" in output and "class 0 is 'a' there and 'b' here" in output
    output = made.refuses(*distill("others", f"student.weights={SHIPPED}", "plan=true"))
    assert f"student.weights={SHIPPED}: its class 1 is 'b', which is class 0" in output


@pytest.mark.parametrize(
    ("root", "words", "images"),
    [
        ("whole", ["teacher.from=bare.pt", "recipe.protocol=paper"], "its accuracy on 16 training images is 0.00%"),
        ("swapped", ["-m", "teacher.from=bare.pt", "T=1,2"], "its accuracy on 16 validation images is 0.00%"),
    ],
)
def test_a_teacher_at_chance_is_refused_before_a_student_trains(made, root, words, images):
    output = made.refuses(*distill(root, *words))
    assert images in output and "classes in another order" in output and "teacher.trust=true" in output


def test_a_trusted_teacher_at_chance_is_said_first_in_the_verdict(made):
    output = made.runs(*distill("swapped", "teacher.from=bare.safetensors", "teacher.trust=true"))
    verdict = output.partition("The teacher is no better than chance: its test accuracy is 0.00%")
    assert verdict[1] and "Not tested" not in verdict[0] and "Not tested" in verdict[2]


def test_an_export_keeps_its_own_normalisation(made):
    made.runs(*distill("brighter", f"teacher.from={SHIPPED}", "teacher.trust=true"))
    run = json.loads((made.folder / "outputs/latest/run.json").read_text())
    (teacher,) = (a["folder"] for a in run["artifacts"] if a["role"] == "teacher")
    record = load_file(made.folder / "outputs/store" / teacher / "logits.safetensors")["test"]
    files = [made.folder / f"brighter/test/{name}/{i}.png" for name in "ab" for i in range(8)]
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files])
    with torch.no_grad():
        wanted = kdrun.load(str(made.folder / SHIPPED))(pixels)
    torch.testing.assert_close(record, wanted, rtol=1e-4, atol=1e-4)
