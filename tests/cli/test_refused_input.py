"""What only the data, the networks or a teacher can say is refused all the same: exit 2, one message, nothing left."""

import zipfile

import numpy as np
import pytest
from PIL import Image

CLASSES = ("ant", "bee")


def images(folder, parts=("train", "test"), classes=CLASSES, per_class=4):
    """A folder of small grey images, a class per folder."""
    generator = np.random.default_rng(0)
    for part in parts:
        for name in classes:
            place = folder / part / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(per_class):
                Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(place / f"{number}.png")
    return folder


def test_a_missing_and_an_empty_folder_are_named_before_any_cell_starts(desk):
    (desk.folder / "empty").mkdir()
    problems = desk.problems("distill", "-m", "dataset=folder", "dataset.root=missing,empty")
    assert "dataset.root=missing" in problems[0] and "no missing" in problems[0]
    assert "dataset.root=empty" in problems[1] and "train/CLASS" in problems[1]


def test_class_folders_that_differ_between_the_parts_are_named(desk):
    images(desk.folder / "mine")
    images(desk.folder / "mine", parts=("train",), classes=("wasp",))
    assert "test/ has no wasp" in desk.refuses("distill", "dataset=folder", "dataset.root=mine")


def test_a_corrupt_image_is_named(desk):
    broken = images(desk.folder / "mine") / "train" / "bee" / "2.png"
    broken.write_bytes(broken.read_bytes()[:40])
    output = desk.refuses("train", "baseline", "dataset=folder", "dataset.root=mine")
    assert "train/bee/2.png" in output and "dataset.on_bad_image=skip" in output


def test_a_truncated_zip_is_named(desk):
    folder = images(desk.folder / "mine")
    with zipfile.ZipFile(desk.folder / "mine.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    whole = (desk.folder / "mine.zip").read_bytes()
    (desk.folder / "mine.zip").write_bytes(whole[: len(whole) // 2])
    assert "mine.zip" in desk.refuses("train", "baseline", "dataset=folder", "dataset.root=mine.zip")


def test_an_unknown_class_to_omit_and_a_network_that_is_too_deep_are_refused_for_every_cell(desk):
    output = desk.refuses("distill", "-m", "transfer.omit_classes=[1],[99]")
    assert "digits has no class 99" in output and "(in the cell transfer.omit_classes=[99])" in output
    output = desk.refuses("distill", "-m", "student=mlp", "student.hidden=[8],[-1]")
    assert "hidden=[-1]" in output and "(in the cell student.hidden=[-1])" in output


def test_a_network_that_cannot_take_the_image_size_is_refused(desk):
    small = ["dataset=synthetic", "dataset.size=4", "dataset.train_images=50", "dataset.test_images=20"]
    output = desk.refuses("distill", *small, "student=vgg8", "teacher=mlp")
    assert "student=vgg8" in output and "at least 8×8, not 4×4" in output


def test_a_loss_whose_number_is_out_of_range_is_refused_in_one_cell_of_a_sweep(desk):
    output = desk.refuses("distill", "-m", "loss.kd.T=1,-1")
    assert "loss.kd: T must be a finite number above 0, got -1" in output and "(in the cell loss.kd.T=-1)" in output


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("os:system", ["os:system", "was not called", "nn.Module"]),
        ("nowhere.at_all:Net", ["there is no module nowhere"]),
        ("nowhere", ["package.module:Name"]),
    ],
)
def test_an_external_target_that_is_no_network_is_refused_uncalled(desk, target, answer):
    output = desk.refuses("train", "baseline", "student=external", f"student.target={target}")
    assert all(part in output for part in answer), output


def test_a_gpu_that_is_not_there_is_refused(desk):
    assert "device=cuda" in desk.refuses("train", "teacher", "device=cuda", CUDA_VISIBLE_DEVICES="")


def test_a_teacher_that_knows_other_classes_is_refused(trained):
    other = ["dataset=synthetic", "dataset.num_classes=3", "dataset.size=8", "dataset.channels=1"]
    output = trained.refuses("distill", *other, "student=mlp", "teacher.from=latest")
    assert "teacher.from=" in output and "10 classes" in output and "has 3" in output


def test_weights_of_another_architecture_are_refused_with_the_names_that_do_not_fit(trained):
    (weights,) = trained.folder.glob("outputs/store/teacher-*/model.safetensors")
    output = trained.refuses("distill", "teacher=mlp", "teacher.hidden=[7]", f"teacher.from={weights}", "seeds=1")
    assert "teacher=mlp" in output and "missing" in output and "unexpected" in output


def test_a_teacher_of_other_outputs_is_refused_with_both_ways_to_take_it(trained, desk):
    there = trained.folder / "outputs"
    output = desk.refuses("distill", f"teacher.from={(there / 'latest').resolve()}", "seeds=1")
    assert f"type outputs={there}, or" in output.replace("\n", " ") and "model.safetensors" in output
    (weights,) = there.glob("store/teacher-*/model.safetensors")
    assert "3 of 3 to train" in desk.runs("distill", f"teacher.from={weights}", "seeds=1", "plan=true")


def test_what_is_doubtful_but_no_error_is_said_in_one_sentence(desk):
    output = desk.runs("distill", "loss=at", "student=mlp", "plan=true")
    assert "\nat has only 1×1 maps" in output and ".py" not in output, output
