"""A teacher that is not here: kdrun answers writes what a network says, and teacher=answers learns from it."""

import json

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from hydra.core.hydra_config import HydraConfig

from kdrun import config
from kdrun.command import groups, preflight
from kdrun.plan import check
from kdrun.plan.requests import RequestBuilder
from kdrun.plan.trust import refuse_chance
from kdrun.plan.waves import waves
from kdrun.store import Store
from kdrun.verbs import answers, predict
from tests.data.given import picture

HALF = ["recipe.epochs=2", "seeds=1", "device=cpu", "transfer.fraction=0.5"]  # with other batches than all images have


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Right answers to the training images of digits, but for every tenth, with the images' labels."""
    folder = tmp_path_factory.mktemp("digits")
    labels = builder("dataset.val_fraction=0").dataset.train.labels.numpy()
    given = np.where(np.arange(len(labels)) % 10 == 0, (labels + 1) % 10, labels)
    frame = pd.DataFrame(np.eye(10)[given] * 0.9 + 0.01, columns=[f"probabilities.{i}" for i in range(10)])
    frame.rename_axis("index").to_csv(folder / "right.csv")
    frame[1:].rename_axis("index").to_csv(folder / "lacking.csv")
    frame.sample(frac=1, random_state=0).reset_index(drop=True).rename_axis("index").to_csv(folder / "shuffled.csv")
    return folder


def builder(*words):
    groups.register([config.CONF])
    checked = preflight.check("distill", words, sweep=False, dirs=[config.CONF])
    assert checked.problems == []
    (cell,) = checked.cells
    HydraConfig.instance().set_config(cell.cfg)
    return RequestBuilder.read("distill", cell.cfg, cell.cfg.hydra.runtime.choices, torch.device("cpu"))


def planned(folder, *words):
    """What a command would train, if nothing is wrong with it."""
    made = builder("teacher=answers", *words)
    entries = [entry for wave in waves(made, Store(folder / "store")) for entry in wave]
    check.check(entries, torch.device("cpu"))
    refuse_chance(entries, made.dataset, Store(folder / "store"), torch.device("cpu"))
    return entries


def result(desk, role, model="*"):
    """The one artifact of a role and a model in the desk's store, with its spec."""
    (folder,) = (desk.folder / "outputs" / "store").glob(f"{role}-digits-{model}-*")
    return folder, *(json.loads((folder / name).read_text()) for name in ("result.json", "spec.json"))


def test_a_student_of_the_file_has_the_weights_of_a_student_of_the_network_bit_for_bit(desk):
    desk.runs("distill", *HALF, "teacher.recipe.epochs=1")
    _, measured, trained = result(desk, "teacher")
    of_network, _, _ = result(desk, "student")
    output = desk.runs("answers", "latest", "--to", "a.safetensors", "device=cpu")
    assert "1,437 training images of digits, not augmented, identified by index;" in output
    assert "; batches of 64 on cpu" in output  # as the recipe's: other sizes may round differently
    written = safetensors.numpy.load_file(desk.folder / "a.safetensors")
    assert written["logits"].shape == (1437, 10) and written["index"].tolist() == [*range(1437)]
    output = desk.runs("distill", *HALF, "teacher=answers", "teacher.file=a.safetensors")
    assert "baseline digits_student: in the store already" in output
    page = (desk.folder / "outputs" / "latest" / "comparison.md").read_text()  # which has every column
    row = next(line.replace("|", " ").split() for line in page.splitlines() if line.startswith("| teacher "))
    assert row[1:3] == ["answers", "–"] and f"{100 * measured['selected']['train']['accuracy']:.2f}" in row
    assert "the teacher's file has no answers to test images" in " ".join(output.split())
    table = json.loads((desk.folder / "outputs" / "latest" / "comparison.json").read_text())
    first, *_, last = table["rows"]
    assert first["test_accuracy"] is None and last["gap_closed"] is None and last["paired"]["n"] == 1
    _, answered, spec = result(desk, "teacher", "answers")
    for part in ("train", "val"):
        assert answered["selected"][part] == pytest.approx(measured["selected"][part], rel=1e-6)
    assert answered["selected"]["test"] is None and answered["parameters"] == 0
    both = [f for f in (desk.folder / "outputs" / "store").glob("student-*") if f != of_network]
    assert len(both) == 1 and json.loads((both[0] / "spec.json").read_text())["teachers"] == [answered["fingerprint"]]
    assert len(spec["recipe"]["adopted"]) == 64 and trained["data"]["digest"] == spec["data"]["digest"]
    assert (both[0] / "model.safetensors").read_bytes() == (of_network / "model.safetensors").read_bytes()
    outputs = desk.folder / "outputs"
    with pytest.raises(ValueError, match="is a file of answers to training images, no network that could be run"):
        predict.open_network("latest", "teacher", None, outputs)
    for words, message in {
        ("--to", str(desk.folder / "b.npz")): "its teacher is a file of answers itself, not a network",
        ("--role=student", "--to", str(desk.folder / "a.safetensors")): "exists already; name another file",
    }.items():
        with pytest.raises(ValueError, match=message):
            answers.main(["latest", *words, "--outputs", str(outputs)])
    with pytest.raises(ValueError, match=r"dataset\.split_seed=0, so it has seen images that are held out here"):
        planned(desk.folder, f"teacher.file={desk.folder / 'a.safetensors'}", "dataset.split_seed=2")


def test_answers_are_the_same_teacher_in_every_format_and_only_their_numbers_tell_them_apart(digits, tmp_path):
    (teacher, *_) = planned(tmp_path, f"teacher.file={digits / 'right.csv'}")
    frame = pd.read_csv(digits / "right.csv")[::-1]
    frame.to_parquet(tmp_path / "same.parquet")
    same, baseline, student, *_ = planned(tmp_path, f"teacher.file={tmp_path / 'same.parquet'}")
    assert same.spec == teacher.spec and student.spec.teachers == (teacher.spec.fingerprint,)
    assert baseline.spec.teachers == () and teacher.spec.data["crop_padding"] == 0
    frame.loc[7, "probabilities.3"] += 1e-3
    frame.to_parquet(tmp_path / "other.parquet")
    assert planned(tmp_path, f"teacher.file={tmp_path / 'other.parquet'}")[0].spec.fingerprint != same.spec.fingerprint


@pytest.mark.parametrize(
    ("file", "words", "message"),
    [
        (
            "right",
            ["augment=crop_flip", "dataset.flip=true"],
            r"would see augmented ones; type augment=none, or teacher\.fixed=true to use",
        ),
        ("right", ["augment=mixup", "teacher.fixed=true"], "make one of two; type augment=none"),
        ("right", ["loss=fitnet"], r"loss\.fitnet: compares more than logits, but teacher=answers .* such as loss=kd"),
        ("right", ["loss=[kd,crd]"], r"loss\.crd: compares more than logits"),
        ("right", ["dataset=synthetic"], "its classes are not those of dataset=synthetic"),
        ("right", ["transfer.extra=."], "has no answers for these 1 images"),
        (
            "lacking",
            ["dataset.val_fraction=0"],
            "no answer for 1 of 1,437 images that the student learns from: index 0;",
        ),
        (
            "shuffled",
            [],
            r"shuffled\.csv: its accuracy on 1,293 answered .*no better.* teacher\.trust=true uses it anyway",
        ),
        ("none", [], r"there is no such file\. Type teacher\.file="),
    ],
)
def test_what_answers_cannot_teach_is_refused(digits, tmp_path, monkeypatch, file, words, message):
    monkeypatch.chdir(tmp_path)
    picture(1).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        planned(tmp_path, f"teacher.file={digits / file}.csv", *words)


def test_what_is_typed_is_taken_and_said(digits, tmp_path, caplog):
    planned(tmp_path, "recipe=patient", "loss=kd", f"teacher.file={digits / 'right.csv'}")  # with mixup but for this
    assert "images without augmentation" not in caplog.text  # the note under the table says it
    fixed = ["augment=crop_flip", "dataset.flip=true", "teacher.fixed=true", f"teacher.file={digits / 'right.csv'}"]
    *_, student = planned(tmp_path, *fixed)
    assert student.spec.data["flip"]
    assert "are for images without augmentation; the student trains on augmented ones" in caplog.text
    planned(tmp_path, f"teacher.file={digits / 'shuffled.csv'}", "teacher.trust=true")
    assert "if the file was cut short" not in caplog.text
    (tmp_path / "cut.csv").write_text((digits / "right.csv").read_text().rstrip())
    planned(tmp_path, f"teacher.file={tmp_path / 'cut.csv'}")
    assert (
        "cut.csv: its last line has no line break; if the file was cut short, its last answer is wrong" in caplog.text
    )
    first = int(builder("dataset.val_fraction=0").dataset.train.labels[0])  # of the image without an answer
    omitted = [f"transfer.omit_classes=[{first}]", "dataset.val_fraction=0"]
    planned(tmp_path, f"teacher.file={digits / 'lacking.csv'}", *omitted)


def test_settings_that_answers_do_not_read_are_refused():
    groups.register([config.CONF])

    def problems(verb, *words):
        return "\n".join(preflight.check(verb, words, sweep=False, dirs=[config.CONF]).problems)

    assert "teacher=answers: which answers? Type teacher.file=FILE" in problems("distill", "teacher=answers")
    assert "there is nothing to train" in problems("train_teacher", "teacher=answers", "teacher.file=a.csv")
    assert problems("train_baseline", "teacher=answers") == ""
    file = ("teacher=answers", "teacher.file=a.csv")
    assert "teacher=answers is a file, with no network to train again" in problems("distill", *file, "generations=2")
    assert "there is no such student" in problems("distill", "student=answers")
    in_vain = ["teacher.recipe.lr=1", "recipe@teacher.recipe=cosine", "teacher.seed=1", "teacher.bank.dtype=float16"]
    in_vain.append("augment@teacher.augment=none")
    assert "dataset.flip=true: has an effect only with crop_flip" in problems("distill", *file, "dataset.flip=true")
    refused = problems("distill", *file, "augment.views=2", *in_vain).splitlines()
    assert refused == [f"{word}: has no effect with teacher=answers, which trains and runs nothing" for word in in_vain]
    assert problems("distill", *file, "teacher.trust=true", "teacher.fixed=true") == ""
    assert "type teacher=answers teacher.fixed=true" in problems("distill", "teacher.fixed=true")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which run"),
        (["latest"], r"to which file\? Type --to FILE, a \.safetensors"),
        (["latest", "--to", "a.txt"], r"--to a\.txt: the ending chooses the format"),
        (["latest", "--to=a.npz", "batch_size=0"], "batch_size 0: must be at least 1"),
        (["latest", "--to=a.npz", "--speed=2"], "unrecognized arguments: --speed=2; see kdrun answers --help"),
        (["nothing", "to=a.npz"], "nothing: there is no such run"),
    ],
)
def test_words_of_kdrun_answers_that_mean_nothing_are_refused(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        answers.main([*words, "--outputs", "outputs"])
    assert not list(tmp_path.iterdir())
