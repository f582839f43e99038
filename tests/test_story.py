"""The whole story as a user tells it: every verb in its own process, on real data, on the CPU."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

import kdrun
from kdrun import data as sets

SHORT = ["recipe.epochs=2", "teacher.recipe.epochs=2", "device=cpu"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """An empty folder to work in."""
    return tmp_path_factory.mktemp("desk")


def type_(desk, *words, code=0):
    """Type a command and give what it printed."""
    env = {k: v for k, v in os.environ.items() if k not in ("KDRUN_OUTPUTS", "KDRUN_FAULT")}
    done = subprocess.run(
        [sys.executable, "-m", "kdrun", *words],
        cwd=desk,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def distilled(desk):
    """The main job, short."""
    return type_(desk, "distill", *SHORT)


def latest(desk):
    return (desk / "outputs" / "latest").resolve()


def test_distill_writes_the_three_way_comparison_and_says_where(desk, distilled):
    last = distilled.strip().splitlines()[-1]
    assert last.startswith("results: ")
    folder = desk / last.removeprefix("results: ")
    assert {
        "comparison.md",
        "comparison.csv",
        "comparison.json",
        "comparison.tex",
        "run.json",
        "kdrun.log",
        ".hydra",
    } <= {p.name for p in folder.iterdir()}
    data = json.loads((folder / "comparison.json").read_text())
    assert [row["role"] for row in data["rows"]] == ["teacher", "baseline", "student"]
    assert [row["n"] for row in data["rows"]] == [1, 3, 3]
    assert data["formula"] == "0.1·CE(y, p_s) + 0.9·4²·KL(p_t ‖ p_s; T=4)"
    point = data["rows"][2]["points"][0]
    assert {"selected", "last", "fingerprint", "versions", "device", "command"} <= set(point)
    rows = list(csv.reader((folder / "comparison.csv").open()))
    assert [row[0] for row in rows] == ["role", "teacher", "baseline", "student"]
    assert data["verdict"] in " ".join(distilled.split())  # wrapped to the terminal's width
    kept = load_file(folder / "examples.safetensors")
    assert {"chosen.ordinary", "chosen.unsure", "chosen.disagree"} <= set(kept)
    assert kept["pixels"].shape == (len(kept["index"]), 8, 8, 1) and kept["pixels"].max() > 200


def test_with_the_teacher_weighing_nothing_the_student_is_the_baseline(desk, distilled):
    output = type_(desk, "distill", *SHORT, "alpha=0")
    assert "baseline digits_student seed 0: found" in output and ": training " not in output
    data = json.loads((latest(desk) / "comparison.json").read_text())
    baseline, student = data["rows"][1:]
    assert baseline["role"] == "baseline" and student["role"] == "student"
    assert student["test_accuracy"] == baseline["test_accuracy"]


def test_baseline_and_student_of_a_seed_share_all_that_decides_weights_and_batches(desk, distilled):
    """Initial weights are drawn from (model, seed), the batches from (data, seed, batch size): no more, no less."""
    record = json.loads((desk / distilled.strip().splitlines()[-1].removeprefix("results: ") / "run.json").read_text())
    specs = {
        (used["role"], used["seed"]): json.loads(
            (desk / "outputs" / "store" / used["folder"] / "spec.json").read_text()
        )
        for used in record["artifacts"]
    }
    for seed in (0, 1, 2):
        baseline, student = specs["baseline", seed], specs["student", seed]
        assert {key for key in baseline if baseline[key] != student[key]} == {"objective", "teachers"}
        assert (baseline["seed"], student["seed"]) == (seed, seed)


def test_a_teacher_that_has_seen_the_held_out_images_is_refused(desk, distilled):
    type_(desk, "train", "teacher", *SHORT[1:], "dataset.split_seed=1")
    done = type_(desk, "distill", *SHORT[:1], "teacher.from=latest", "seeds=1", code=2)
    assert "has seen images that are held out here" in done
    output = type_(desk, "distill", *SHORT[:1], "teacher.from=latest", "seeds=1", "dataset.split_seed=1", "device=cpu")
    assert "teacher: using" in output


def test_an_evaluation_gives_no_validation_accuracy_on_images_that_were_trained_on(desk, distilled):
    type_(desk, "distill", *SHORT, "recipe.protocol=paper", "seeds=1")
    output = type_(desk, "evaluate", "latest", "device=cpu")
    table = [line.split() for line in output.splitlines() if line.startswith(("teacher", "baseline", "student"))]
    assert len(table) == 3 and all(line[3] == "–" and line[-1] == "+0.00" for line in table)


def test_unlabelled_images_are_added_for_the_student_alone_and_the_table_says_so(desk, distilled):
    from PIL import Image

    (desk / "more").mkdir()
    for i in range(40):
        Image.new("L", (8, 8), 6 * i).save(desk / "more" / f"{i}.png")
    tested = sets.load("digits.digits", name="digits", val_fraction=0.1, split_seed=0).test
    Image.fromarray(tested.images[0, 0].numpy()).save(desk / "more" / "tested.png")
    output = type_(desk, "distill", *SHORT, "seeds=2", "transfer.extra=more")
    assert output.count("transfer.extra=more: 1 test images are among the 41 extra ones") == 1
    assert "training on cpu" in output
    assert "with unlabelled images added for the student" in output
    compared = json.loads((latest(desk) / "comparison.json").read_text())
    assert any("same initial weights; the student sees more images" in note for note in compared["table"]["notes"])
    assert output.count("baseline digits_student seed") == output.count(": found") - 1  # with the teacher: nothing anew


def test_a_second_command_finds_everything(desk, distilled):
    output = type_(desk, "distill", *SHORT)
    assert output.count(": found ") == 7 and ": training " not in output


def test_train_teacher_and_train_baseline_share_the_store_with_distill(desk, distilled):
    assert "teacher digits_teacher: found" in type_(desk, "train", "teacher", *SHORT[1:])
    assert "baseline digits_student seed 1: found" in type_(desk, "train", "baseline", SHORT[0], SHORT[2])


def test_evaluate_measures_again_what_was_recorded(desk, distilled):
    type_(desk, "distill", *SHORT)
    output = type_(desk, "evaluate", "latest", "device=cpu")
    table = [line.split() for line in output.splitlines() if line.startswith(("teacher", "baseline", "student"))]
    assert len(table) == 7
    assert all(line[-1] == "+0.00" for line in table)


def test_a_sweep_writes_its_table_and_picture_and_marks_the_best_by_validation(desk, distilled):
    output = type_(desk, "distill", "-m", "T=1,4", *SHORT, "seeds=2")
    folder = latest(desk)
    assert {"sweep.md", "sweep.csv", "sweep.json", "sweep.tex", "sweep.svg"} <= {p.name for p in folder.iterdir()}
    sweep = json.loads((folder / "sweep.json").read_text())
    accuracy = {}
    for cell in sweep["cells"]:
        student = next(row for row in cell["rows"] if row["role"] == "student")
        accuracy[cell["number"]] = (student["val_accuracy"]["mean"], -student["val_nll"]["mean"])
    assert sweep["best"]["number"] == max(accuracy, key=accuracy.get)
    assert "★" in output and output.strip().splitlines()[-1].startswith("results: ")
    assert "teacher digits_teacher: found" in output  # once for all cells


def test_report_and_runs_read_what_lies_there(desk, distilled):
    report = type_(desk, "report")
    assert "digits" in report
    assert json.loads((desk / "outputs" / "report" / "report.json").read_text())["runs"]
    listed = type_(desk, "runs")
    names = [p.name for p in (desk / "outputs" / "runs" / "distill").iterdir()]
    assert all(name[-6:] in listed for name in names)
    first, second = sorted(names)[:2]
    assert "alpha" in type_(desk, "runs", first, second)


def test_the_student_is_shipped_checked_and_classifies_image_files_as_it_did(desk, distilled):
    from PIL import Image
    from sklearn.datasets import load_digits

    type_(desk, "distill", *SHORT)
    output = type_(desk, "export", "latest", "format=onnx", "to=shipped")
    check = json.loads((desk / "shipped" / "export.json").read_text())["check"]
    assert check["problem"] is None and check["changed"] == 0 and check["images"] == 360
    assert check["file_accuracy"] == check["recorded_accuracy"], output
    (desk / "photos").mkdir()
    for i, image in enumerate(load_digits().images[:8]):
        Image.fromarray((image / 16 * 255).round().astype("uint8")).save(desk / "photos" / f"{i}.png")
    answers = [json.loads(type_(desk, "predict", network, "photos", "--json")) for network in ("latest", "shipped")]
    run, file = ([(image["file"], image["class"]) for image in answer["images"]] for answer in answers)
    assert run == file and len(run) == 8


def test_the_lists_of_choices_are_printed(desk):
    assert "64×8×8" in type_(desk, "models", "resnet20")  # the others: tests/cli/test_help_and_listings.py
    assert kdrun.__version__ in type_(desk, "--version")


def test_a_trained_network_is_loaded_in_python_with_its_preprocessing(desk, distilled):
    from sklearn.datasets import load_digits

    folder = sorted((desk / "outputs" / "runs" / "distill").iterdir())[0]
    model = kdrun.load(str(folder), role="teacher", outputs=str(desk / "outputs"))
    digits = load_digits()
    images = torch.tensor(digits.images / 16 * 255).round().to(torch.uint8)[:, None]
    with torch.no_grad():
        right = (model(images).argmax(1).numpy() == digits.target).mean()
    recorded = json.loads((folder / "comparison.json").read_text())["rows"][0]
    low = min(recorded[f"{part}_accuracy"]["mean"] for part in ("train", "val", "test"))
    high = max(recorded[f"{part}_accuracy"]["mean"] for part in ("train", "val", "test"))
    assert low - 1e-9 <= right <= high + 1e-9


@pytest.mark.parametrize("name", [pytest.param("mnist", marks=pytest.mark.slow), "fashion_mnist"])
def test_a_three_way_run_on_real_images(desk, name):
    root = Path(os.environ.get("KDRUN_DATA", "/nowhere"))
    folder = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]
    if not (root / folder / "raw").is_dir():
        pytest.skip(f"KDRUN_DATA names no folder that holds {folder}/raw")
    output = type_(
        desk, "distill", f"dataset={name}", "student=mlp", "teacher=mlp", "teacher.hidden=[256]",
        "student.hidden=[16]", "seeds=1", "recipe.batch_size=512", "teacher.recipe.batch_size=512",
        "teacher.recipe.epochs=1", "recipe.epochs=1", "dataset.crop_padding=0", "device=cpu",
    )  # fmt: skip
    data = json.loads((latest(desk) / "comparison.json").read_text())
    floor = {"mnist": 0.8, "fashion_mnist": 0.7}[name]
    assert all(row["test_accuracy"]["mean"] > floor for row in data["rows"]), output
    assert "10,000 test images" in output
