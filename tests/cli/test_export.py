"""kdrun export: the chosen network as a file, checked; what does not pass or cannot be is said, with its exit code."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import kdrun
from kdrun import config
from kdrun.evaluation.accuracy import accuracy
from kdrun.export import target
from kdrun.export.check import Check
from kdrun.export.choose import choose
from kdrun.export.parity import compare
from kdrun.export.read import open_exported
from kdrun.export.sheet import Sheet
from kdrun.files import RunFailed
from kdrun.verbs import export, predict
from tests.cli.conftest import SHORT, Desk


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """A folder with a run of two seeds."""
    desk = Desk(tmp_path_factory.mktemp("two"))
    desk.runs("distill", *SHORT[:2], "seeds=2", "device=cpu", "report=false")
    return desk


@pytest.fixture(scope="module")
def shipped(two_seeds):
    """What `kdrun export latest format=onnx` printed and left."""
    return two_seeds.runs("export", "latest", "format=onnx", "to=shipped"), two_seeds.folder / "shipped"


def chosen(desk):
    """The student's result with the higher validation accuracy."""
    folder = (desk.folder / "outputs" / "latest").resolve()
    used = [a for a in json.loads((folder / "run.json").read_text())["artifacts"] if a["role"] == "student"]
    results = [json.loads((desk.folder / "outputs/store" / a["folder"] / "result.json").read_text()) for a in used]
    return max(results, key=lambda r: (r["selected"]["val"]["accuracy"], -r["selected"]["val"]["nll"]))


def test_the_seed_chosen_on_validation_is_shipped_and_measures_as_on_record(two_seeds, shipped):
    output, folder = shipped
    record = json.loads((folder / "export.json").read_text())
    wanted = chosen(two_seeds)
    assert record["fingerprint"] == wanted["fingerprint"]
    assert f"seed {wanted['seed']}, the best of 2 by validation accuracy" in output
    check = record["check"]
    assert check["images"] == 360 and check["changed"] == 0 and check["problem"] is None
    assert check["deviation"] < 1e-4 * check["spread"]
    assert check["accuracy"] == check["file_accuracy"] == wanted["selected"]["test"]["accuracy"]
    assert {"1", "128"} == set(check["latency_ms"]) and check["threads"] == 1
    assert check["latency_ms"]["128"]["file"]["p95_ms"] >= check["latency_ms"]["128"]["file"]["median_ms"] > 0
    assert check["bytes"]["file"] == (folder / "model.onnx").stat().st_size


def test_the_folder_holds_the_file_its_sheet_its_card_and_nothing_of_the_training(shipped):
    output, folder = shipped
    assert {p.name for p in folder.iterdir()} == {"model.onnx", "kdrun.json", "MODEL_CARD.md", "export.json"}
    assert output.strip().splitlines()[-1] == "results: shipped"
    assert "Teacher: digits_teacher" in (folder / "MODEL_CARD.md").read_text()


def test_the_file_is_as_right_as_scikit_learns_own_copy_of_the_digits_lets_it_be(two_seeds, shipped):
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)[:, None]
    opened = open_exported(shipped[1] / "model.onnx")
    right = accuracy(opened.classify(images), digits.target)
    points = chosen(two_seeds)["selected"]
    parts = [points[part]["accuracy"] for part in ("train", "val", "test")]
    assert min(parts) <= right <= max(parts)


def test_a_run_of_its_own_says_what_was_exported_and_latest_stays_with_the_training(two_seeds, shipped):
    (folder,) = [p for p in (two_seeds.folder / "outputs" / "runs" / "export").iterdir()][:1]
    record = json.loads((folder / "run.json").read_text())
    assert (record["verb"], record["status"]) == ("export", "done")
    assert [a["fingerprint"] for a in record["artifacts"]] == [chosen(two_seeds)["fingerprint"]]
    assert "distill" in str((two_seeds.folder / "outputs" / "latest").resolve())
    assert two_seeds.refuses("export", folder.name).startswith(f"kdrun: {folder.name}: is the run of kdrun export")


def test_weights_without_a_check_are_loaded_again_by_kdrun(two_seeds):
    output = two_seeds.runs("export", "latest", "role=teacher", "check=false", "to=weights")
    assert "model.safetensors, not checked" in output and "ms (p95)" not in output
    outputs = str(two_seeds.folder / "outputs")
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8))
    wanted = kdrun.load(str(two_seeds.folder / "outputs" / "latest"), role="teacher", outputs=outputs)
    for place in (two_seeds.folder / "weights", two_seeds.folder / "weights" / "model.safetensors"):
        loaded = kdrun.load(str(place))
        assert loaded.classes == wanted.classes and torch.equal(loaded(images), wanted(images))


def test_a_run_classifies_as_its_exported_student_does_and_says_how_it_was_chosen(two_seeds, shipped, capsys):
    images = two_seeds.folder / "photos"
    images.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)):
        Image.fromarray(pixels).save(images / f"{i}.png")
    lines = []
    for name in (str(two_seeds.folder / "outputs" / "latest"), str(shipped[1])):
        assert predict.main([name, str(images), "--json", f"outputs={two_seeds.folder / 'outputs'}"]) == 0
        lines.append(json.loads(capsys.readouterr().out))
    run, file = lines
    assert run["network"]["fingerprint"] == file["network"]["fingerprint"] == chosen(two_seeds)["fingerprint"]
    assert "the best of 2 by validation accuracy" in run["network"]["chosen"]
    assert [image["class"] for image in run["images"]] == [image["class"] for image in file["images"]]
    own, other = ([image["probability"] for image in answer["images"]] for answer in lines)
    assert own == pytest.approx(other, abs=1e-5)
    assert "has no student of seed 5" in two_seeds.refuses("predict", "latest", "photos", "--seed", "5")


def test_a_graph_is_not_taken_for_weights(shipped):
    with pytest.raises(ValueError, match=r"model\.onnx: contains a graph, not .* MODEL_CARD\.md shows"):
        kdrun.load(str(shipped[1]))
    with pytest.raises(ValueError, match="contains a single network; leave role and seed out"):
        kdrun.load(str(shipped[1]), role="teacher")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "kdrun export: which run?"),
        (["a dog's, (1) [x]"], "a dog's, (1) [x]: there is no such run"),
        (["41e926456382"], "41e926456382: there is no such run"),  # a fingerprint, and to Hydra a number
        (["latest", "format=onnx", "device=cuda"], "device=cuda: format=onnx is checked with ONNX Runtime on the CPU"),
        (["latest", "seed=9"], "has no student of seed 9; it has teacher seed 0, baseline seed 0"),
        (["latest", "to=/proc/kdrun"], "to=/proc/kdrun: /proc cannot be written"),
        (["-m", "latest", "format=onnx,safetensors", "to=one"], "to=one: the cells would all write to it"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(two_seeds, shipped, words, message):
    assert message in two_seeds.refuses("export", *words)


def test_all_that_is_wrong_is_said_at_once(two_seeds, shipped):
    problems = two_seeds.problems("export", "latest", "format=tflite", "check=false", "batch_size=7", "T=4")
    assert "there is no key T" in problems[0] and problems[1].startswith(
        "format=tflite: choose safetensors, onnx, torch_export"
    )
    assert problems[2].strip() == "batch_size=7: has no effect with check=false"
    problems = two_seeds.problems("export", "latest", "role=generation", "to=shipped")
    assert "has no generation; it has" in problems[0] and "to=shipped: is not empty" in problems[1]


def test_changed_and_unknown_data_are_refused_unless_nothing_is_checked(two_seeds):
    choice = choose("latest", "student", None, two_seeds.folder / "outputs")
    artifact = choice.artifact(two_seeds.folder / "outputs")
    assert len(export._test_images(choice, artifact, {})) == 360
    other = yaml.safe_load((config.CONF / "dataset" / "synthetic.yaml").read_text())["dataset"]
    other |= {"num_classes": 2, "train_images": 20, "test_images": 4, "size": 8}
    record = {**choice.run.record, "config": {"dataset": other}}
    with pytest.raises(ValueError, match=r"has changed since, .* or check=false"):
        export._test_images(replace(choice, run=replace(choice.run, record=record)), artifact, {})
    with pytest.raises(ValueError, match=r"no run here uses it, so its data are unknown; .* check=false"):
        export._test_images(replace(choice, run=None), artifact, {})


def test_a_file_that_is_not_the_network_is_moved_to_failed_and_fails_the_run(two_seeds, tmp_path):
    choice = choose("latest", "student", None, two_seeds.folder / "outputs")
    artifact = choice.artifact(two_seeds.folder / "outputs")
    sheet = Sheet.of(artifact, "onnx", choice.role)
    (tmp_path / target.UNCHECKED).mkdir()
    (tmp_path / target.UNCHECKED / sheet.file).write_bytes(b"a file")
    own = np.eye(3)
    parity = compare(own, own[::-1], np.arange(3))
    check = Check(parity, {}, None, (1, 1), ("torch", "onnxruntime"), "cpu", 1)
    with pytest.raises(
        RunFailed, match=r"model\.onnx does not match the network it was exported from: its logits differ by up to 1"
    ):
        target.settle(tmp_path, sheet, artifact, choice, check)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {
        "failed/model.onnx", "failed/export.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "failed" / "export.json").read_text())["check"]["problem"]


def test_a_signal_leaves_nothing_behind_so_that_the_same_command_works_again(tmp_path):
    with pytest.raises(KeyboardInterrupt), target.unchecked(tmp_path / "to") as made:
        made.mkdir(parents=True)
        (made / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_said_beside_all_else_that_is_wrong(monkeypatch, tmp_path):
    monkeypatch.setattr(target, "missing", lambda format: f"format={format}: needs onnx")
    keys = {"run": "gone", "format": "onnx", "role": "student", "seed": None, "to": None, "outputs": str(tmp_path)}
    problems = target.problems([SimpleNamespace(cfg=SimpleNamespace(**keys))])
    assert problems[0] == "format=onnx: needs onnx" and problems[1].startswith("gone: there is no such run")


def test_several_exports_are_one_command_and_make_no_table_of_trainings(two_seeds):
    output = two_seeds.runs("export", "-m", "latest", "seed=0,1", "check=false", "to=all/${seed}")
    files = {p.relative_to(two_seeds.folder).as_posix() for p in (two_seeds.folder / "all").rglob("model.*")}
    assert files == {"all/0/model.safetensors", "all/1/model.safetensors"}
    assert output.count("exported: ") == 2 and "0 of 2 cells finished" not in output


def test_a_sweep_whose_students_lose_on_validation_is_shipped_with_the_warning(desk):
    output = desk.runs("distill", "-m", "T=8,16", "alpha=1", *SHORT)
    (sentence,) = re.findall(r"No cell beats the baseline on validation: ship the baseline \([\d.]+%\)\.", output)
    assert output.partition(sentence)[2].split()[:5] == ["Best", "of", "2", "by", "validation:"]
    assert sentence in desk.runs("export", "latest", "to=student", "check=false")
    assert sentence in (desk.folder / "student" / "MODEL_CARD.md").read_text()
    Image.new("L", (8, 8)).save(desk.folder / "a.png")
    sweep = next((desk.folder / "outputs" / "sweeps" / "distill").iterdir()).name
    done = desk.type("predict", sweep, "a.png", "--json")
    assert json.loads(done.stdout)["images"] and sentence in done.stderr
    assert "No cell" not in desk.runs("export", sweep, "to=alone", "role=baseline", "check=false")
    assert "No cell" not in (desk.folder / "alone" / "MODEL_CARD.md").read_text()
