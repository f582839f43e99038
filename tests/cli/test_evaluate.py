"""kdrun evaluate with robustness and cost, as it is typed: measured once, found again, refused where it cannot be."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from kdrun import config, data
from kdrun.command import groups, preflight
from kdrun.config import CORRUPTIONS, Robustness
from kdrun.lifecycle.measurements import measure_robustness
from kdrun.measuring import conditions, robustness
from kdrun.measuring.cache import all_cached, cached
from kdrun.signals import Interrupted, StopFlag
from kdrun.store import Store
from tests.cli.conftest import SHORT, Desk

SMALL = ["robustness=quick", "robustness.corruptions=[blur,shift]", "robustness.severities=[1,5]", "device=cpu",
         "robustness.fgsm=[8]", "robustness.pgd=[8]", "robustness.pgd_steps=2",
         "robustness.attack_images=30"]  # fmt: skip


def results(desk, message):
    return desk.folder / message.strip().splitlines()[-1].removeprefix("results: ")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which the main job has run once, on digits, without its page."""
    desk = Desk(tmp_path_factory.mktemp("trained"))
    desk.runs("distill", *SHORT, "report=false")
    return desk


@pytest.fixture(scope="module")
def evaluated(trained):
    """What a first evaluation with robustness and cost printed."""
    return trained.runs("evaluate", "latest", *SMALL, "cost=true", KDRUN_REPORT="png")


def test_robustness_and_cost_are_written_as_tables_and_pictures(trained, evaluated):
    folder = results(trained, evaluated)
    tables = {f"{name}.{kind}" for name in ("robustness", "cost") for kind in ("md", "csv", "tex", "json")}
    pictures = {f"{name}.{kind}" for name in ("robustness", "pareto") for kind in ("svg", "png")}
    assert tables | pictures | {"evaluation.md"} <= {p.name for p in folder.iterdir()}
    rows = {row["images"]: row for row in csv.DictReader((folder / "robustness.csv").open())}
    assert list(rows) == [
        "clean", "corrupted, mean", "lost to corruptions", "blur", "shift", "clean, attacked images", "attacked, mean",
        "lost to attacks", "FGSM ε=8", "PGD ε=8",
    ]  # fmt: skip
    comparison = json.loads(next(trained.folder.glob("outputs/runs/distill/*/comparison.json")).read_text())
    for row in comparison["rows"]:  # of images as they are, as many are right as after the training
        assert float(rows["clean"][f"{row['role']} %"]) == pytest.approx(100 * row["test_accuracy"]["mean"])
    assert "one seed says nothing about training noise" in " ".join(evaluated.split())
    networks = json.loads((folder / "cost.json").read_text())["networks"]
    assert [net["parameters"] for net in networks] == [row["points"][0]["parameters"] for row in comparison["rows"]]
    teacher, baseline, student = networks
    assert student["latency"] == baseline["latency"] and student["macs"] == 2720  # one architecture, measured once
    assert teacher["times_the_teacher"] == {key: 1.0 for key in student["times_the_teacher"]}


def test_a_second_evaluation_finds_what_was_measured(trained, evaluated):
    store = trained.folder / "outputs" / "store"
    (student,) = store.glob("student-*")
    before = all_cached(student, "cost")
    output = trained.runs("evaluate", "latest", *SMALL, "cost=true")
    assert (
        "robustness: already measured for all 3 networks" in output
        and "already measured for all 3 networks" in output.split("cost on")[1]
    )
    assert all_cached(student, "cost") == before
    for name in ("robustness.md", "cost.csv"):
        one, other = (
            [line for line in (results(trained, text) / name).read_text().splitlines() if "command: " not in line]
            for text in (evaluated, output)
        )
        assert one == other


def test_a_run_outside_of_outputs_is_measured_in_the_store_beside_it(trained, evaluated):
    (run,) = trained.folder.glob("outputs/runs/distill/*")
    output = trained.runs("evaluate", f"outputs/runs/distill/{run.name}", *SMALL, KDRUN_OUTPUTS="elsewhere")
    assert "robustness: already measured for all 3 networks" in output


def test_a_teacher_of_a_run_on_other_test_images_keeps_its_own_numbers(desk):
    """It was measured on its 30 test images; students that are tested on 20 take none of that, and add nothing."""
    data = ["dataset=synthetic", "dataset.size=8", "dataset.channels=1", "dataset.num_classes=2",
            "dataset.train_images=60", "student=mlp", "report=false", SHORT[0], *SHORT[2:]]  # fmt: skip
    little = ["robustness=quick", "robustness.corruptions=[blur]", "robustness.severities=[1]", "robustness.fgsm=[]",
              "robustness.pgd=[]"]  # fmt: skip
    desk.runs("distill", *data, "dataset.test_images=30", "teacher=mlp", SHORT[1], *little)
    (teacher,) = desk.folder.glob("outputs/store/teacher-*")
    before = all_cached(teacher, "robustness")
    output = desk.runs("distill", *data, "dataset.test_images=20", "teacher.from=latest", "teacher.trust=true", *little)
    assert "20 test images (all), the same corrupted ones for all networks" in " ".join(output.split())
    assert "not measured: 1 of teacher (trained on other data)" in " ".join(output.split())
    assert all_cached(teacher, "robustness") == before and before[0]["images"]["test"] == 30


def test_all_that_is_wrong_with_a_measurement_is_said_at_once(trained):
    words = {
        "robustness.corruptions=[blur,fogg,jpg]": "there is no fogg",
        "robustness.severities=[0,6]": "[0,6]: needs whole numbers from 1 to 5",
        "robustness.fgsm=[-1]": "in (0, 255]",
        "robustness.pgd=[2,2]": "a value is listed twice",
        "robustness.pgd_steps=0": "[1, inf)",
        "robustness.images=0": "[1, inf)",
        "robustness.pgd_stepp=3": "Did you mean robustness.pgd_step",
        "robustness.seed=x": "a whole number",
    }
    problems = trained.problems("evaluate", "latest", "robustness=standard", *words)
    for word, answer in words.items():
        assert any(answer in problem for problem in problems), (word, problems)
    assert any("there is no jpg. Did you mean jpeg?" in p and all(name in p for name in CORRUPTIONS) for p in problems)
    assert len(problems) == len(words) + 1


@pytest.fixture(scope="module")
def check():
    """A function that gives what is wrong with a command's words."""
    groups.register([config.CONF])
    return lambda verb, *words: preflight.check(verb, words, sweep=False, dirs=[config.CONF]).problems


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["robustness=hard"], "Available: none, quick, standard"),
        (["robustness.pgd_steps=3"], "type robustness=quick or robustness=standard"),
        (["robustness=quick", "robustness.pgd=[]", "robustness.pgd_steps=3"], "robustness.pgd=[]"),
        (["robustness=quick", "robustness.corruptions=[]", "robustness.images=3"], "has no effect"),
        (
            ["robustness=quick", "robustness.corruptions=[]", "robustness.fgsm=[]", "robustness.pgd=[]"],
            "to measure nothing",
        ),
        (["force=true"], "has an effect only with robustness=standard, robustness=quick or cost=true"),
        (["cost=yes"], "true or false"),
    ],
)
def test_a_setting_that_is_wrong_or_read_by_nothing_gets_one_clear_line(check, words, answer):
    (problem,) = check("evaluate", "run=x", *words)
    assert answer in problem


def test_a_measurement_without_its_defaults_is_right_and_training_alone_measures_nothing(check):
    words = [
        "robustness=quick",
        "robustness.pgd_step=1.5",
        "robustness.fgsm=[0.5,1]",
        "robustness.images=null",
        "force=true",
    ]
    assert check("evaluate", "run=x", *words) == [] == check("evaluate", "run=x", "cost=true", "force=true")
    for verb in ("train_teacher", "train_baseline"):
        assert check(verb, "robustness=quick") == []  # with a note, as distill reads it
        assert "has no effect with robustness=none" in check(verb, "robustness.seed=1")[0]


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """A folder in which a run was trained on images that are streamed from their files; the words to type there."""
    room = tmp_path_factory.mktemp("streamed")
    desk, cache = Desk(room / "desk"), {"KDRUN_CACHE": str(room / "cache")}
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 12)):
        for i in range(count):
            folder = desk.folder / "images" / part / f"class{i % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 90, size=(12, 12, 3), dtype=np.uint8)
            pixels[:, 6 * (i % 2) : 6 * (i % 2) + 6] += 120
            Image.fromarray(pixels).save(folder / f"{i:02}.png")
    mine = ["dataset=folder", "dataset.root=images", "dataset.max_resident_gb=0", "dataset.val_fraction=0.2",
            "student=mlp", "recipe=quick", "workers=0", "report=false", *SHORT[:1], *SHORT[2:]]  # fmt: skip
    desk.runs("train", "baseline", *mine, **cache)
    return desk, cache


def test_images_that_are_streamed_from_files_are_measured_too(streamed):
    desk, cache = streamed
    output = desk.runs("evaluate", "latest", *SMALL, "batch_size=5", **cache)
    assert "12 test images (all)" in output and "FGSM ε=8" in output
    assert output.count("baseline %") == 1 and "Under corruptions, baseline: mean accuracy" in output


def test_images_that_have_changed_or_are_gone_are_refused(streamed):
    desk, cache = streamed
    (desk.folder / "images" / "test" / "class0" / "00.png").unlink()
    output = desk.refuses("evaluate", "latest", "robustness=quick", **cache)
    assert "was trained on the present data of folder, so there are no test images to corrupt or attack" in output
    shutil.rmtree(desk.folder / "images")
    assert "images" in desk.refuses("evaluate", "latest", "robustness=quick", **cache)


class StopAfter(StopFlag):
    """A flag that is raised when it has been read so often."""

    def __init__(self, reads):
        super().__init__()
        self.left = reads

    def check(self):
        self.left -= 1
        self.raised = self.left < 0
        super().check()


def test_an_interrupted_measurement_goes_on_where_it_was_and_force_begins_anew(trained, tmp_path, monkeypatch):
    import torch

    shutil.copytree(trained.folder / "outputs" / "store", tmp_path / "store")
    for folder in (tmp_path / "store").glob("*/measured"):
        shutil.rmtree(folder)
    result = (Store(tmp_path / "store").find(p.name[-12:]) for p in sorted((tmp_path / "store").glob("*-digits-*")))
    artifacts = [artifact for artifact in result if artifact]
    dataset = data.load("digits.digits", name="digits", val_fraction=0.1, split_seed=0)
    test, digest = dataset.test, dataset.digest
    how = Robustness(corruptions=["blur", "shift"], severities=[1, 5], fgsm=[8.0], pgd=[], attack_images=30)
    calls = []
    measure = robustness.measure

    def recorded(family, *args, **kwargs):
        calls.append(family)
        return measure(family, *args, **kwargs)

    monkeypatch.setattr(robustness, "measure", recorded)
    with pytest.raises(Interrupted):  # 3 networks: 3 passes for the clean images, 6 for blur, then into shift
        measure_robustness(artifacts, test, digest, how, torch.device("cpu"), 360, StopAfter(10))
    assert calls == ["clean", "blur", "shift"]
    partial = cached(artifacts[0].folder, "robustness", conditions.settings(how, digest))
    assert list(partial["accuracy"]) == ["clean", "blur"] and not partial["complete"]
    calls.clear()
    measure_robustness(artifacts, test, digest, how, torch.device("cpu"), 360, StopAfter(10**6))
    assert calls == ["shift", "fgsm"]
    whole = [cached(a.folder, "robustness", conditions.settings(how, digest)) for a in artifacts]
    assert all(result["complete"] for result in whole)
    calls.clear()
    shutil.rmtree(artifacts[1].folder / "measured")
    measure_robustness(artifacts, test, digest, how, torch.device("cpu"), 100, StopAfter(10**6))
    assert calls == ["clean", "blur", "shift", "fgsm"]  # of the one network that lost its numbers
    again = [cached(a.folder, "robustness", conditions.settings(how, digest)) for a in artifacts]
    assert [result["accuracy"] for result in again] == [result["accuracy"] for result in whole]
    assert [result == other for result, other in zip(again, whole, strict=True)].count(False) == 1
    calls.clear()
    measure_robustness(artifacts, test, digest, how, torch.device("cpu"), 360, StopAfter(10**6), force=True)
    assert calls == ["clean", "blur", "shift", "fgsm"]
    last = [cached(a.folder, "robustness", conditions.settings(how, digest)) for a in artifacts]
    assert [result == other for result, other in zip(last, again, strict=True)] == [False] * 3
    assert [result["accuracy"] for result in last] == [result["accuracy"] for result in whole]


def test_of_a_sweep_the_best_cell_is_measured(desk):
    desk.runs("distill", "-m", *SHORT, "alpha=0.1,0.9", "report=false")
    sweep = json.loads((desk.folder / "outputs" / "latest" / "sweep.json").read_text())
    output = desk.runs("evaluate", "latest", "device=cpu")
    chosen = re.search(r"cell \S+/(\d), the best of 2 by validation \(alpha=(\S+)\)\n", output)
    assert sweep["cells"][int(chosen[1])]["overrides"][-2] == f"alpha={chosen[2]}"
    run = json.loads((desk.folder / "outputs" / "latest" / chosen[1] / "run.json").read_text())
    assert {a["fingerprint"] for a in run["artifacts"]} == set(re.findall(r"\b[0-9a-f]{12}\b", output))
