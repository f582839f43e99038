"""The model card says what is on record, and its lines of code work without kdrun."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from kdrun.artifact import Artifact
from kdrun.data.decoding import Source, Sources, decoded
from kdrun.export.card import card
from kdrun.export.check import Check
from kdrun.export.choose import choose
from kdrun.export.parity import Parity
from kdrun.export.read import open_exported, through_torch
from kdrun.export.sheet import Sheet
from kdrun.export.snippets import code
from kdrun.export.write import write
from kdrun.spec import Spec
from tests.data.given import picture
from tests.export.given import network
from tests.results.given import run, trio

NAME = "2026-01-02_03-04-05-aaaaaa"
SECTIONS = ["Model Details", "Uses", "How to Get Started with the Model", "Training Details", "Evaluation",
            "Bias, Risks, and Limitations", "Reproduction"]  # fmt: skip


@pytest.fixture
def shipped(tmp_path):
    """A run of six seeds, and its chosen student as an artifact."""
    run(tmp_path, NAME, trio(tmp_path / "store", [93, 94, 92, 93, 95, 93], [90, 91, 90, 90, 91, 89]))
    choice = choose(NAME, "student", None, tmp_path)
    folder = tmp_path / "store" / choice.used["folder"]
    teacher = json.loads((next((tmp_path / "store").glob("teacher-*")) / "result.json").read_text())
    result = json.loads((folder / "result.json").read_text()) | {"teachers": [teacher["fingerprint"]]}
    sheet = network("mlp", hidden=[4])[1]
    model = sheet("onnx").spec["model"] | {"num_classes": 4}
    transfer = {"fraction": 1, "seed": 0, "omit_classes": [3], "labels": True, "extra": None}
    data = {"mean": [0.4], "std": [0.25], "crop_padding": 2, "flip": False, "val_fraction": 0.1, "transfer": transfer}
    recipe = {"optimizer": "adam", "momentum": 0.9, "lr": 0.01, "epochs": 30, "clip_norm": None}
    return Artifact(folder, Spec(data, model, {}, recipe, 0, "fp32"), result), choice


def card_text(shipped, format="onnx", check=None):
    artifact, choice = shipped
    return card(Sheet.of(artifact, format, choice.role), artifact, choice, check)


def test_its_sections_are_those_of_the_hub_and_its_head_is_yaml(shipped):
    text = card_text(shipped)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    head = yaml.safe_load(text.split("---")[1])
    assert head["pipeline_tag"] == "image-classification" and head["library_name"] == "onnx"
    assert head["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.93}]


def test_it_tells_the_results_with_their_interval_the_teacher_the_recipe_and_the_choice(shipped):
    text = card_text(shipped)
    verdict = shipped[1].run.comparison["verdict"]
    assert verdict.startswith("Gain: +3.17 points") and "95% [" in verdict and verdict in text
    assert "Teacher: big, 16,842 parameters" in text and "test accuracy 97.00%" in text
    assert "| optimizer | adam |" in text and "| lr | 0.01 |" in text
    assert "momentum" not in text and "clip_norm" not in text  # adam reads no momentum; nothing was clipped
    assert "It is seed 0, the best of 6 by validation accuracy" in text and "kdrun distill" in text


def test_it_tells_the_limits_that_are_on_record(shipped):
    text = card_text(shipped)
    assert "It was trained without images of: class 3." in text and "omit_classes=[3]" in text
    assert "can run code" not in text and "can run code" in card_text(shipped, "torch_export")
    assert "was not compared with the network it was exported from" in text


def test_what_was_checked_stands_in_it(shipped):
    ms = {"median_ms": 0.5, "p95_ms": 0.75}
    parity = Parity(100, 2e-6, 1.5, 1, 1, 0.93, 0.94)
    latency = {1: {"network": ms, "file": ms}, 128: {"network": ms, "file": {"median_ms": 9.0, "p95_ms": 12.0}}}
    check = Check(parity, latency, 0.93, (1000, 2000), ("torch 2", "onnxruntime 1"), "cpu (x86_64)", 2)
    text = card_text(shipped, check=check)
    assert "| test accuracy % | 93.00 | 94.00 |" in text and "| 1 of 100 |" in text
    assert "| latency of 128 images, ms (p95) | 0.5 (0.75) | 9 (12) |" in text
    assert "on cpu (x86_64), 2 threads" in text and "1 of those classified differently are ties" in text


@pytest.mark.parametrize(
    ("format", "channels", "blocked"), [("onnx", 3, ("kdrun", "torch")), ("torch_export", 1, ("kdrun",))]
)
def test_its_lines_of_code_give_the_networks_logits_without_kdrun(tmp_path, format, channels, blocked):
    net, sheets = network("mlp", hidden=[4], size=(8, 10), channels=channels)
    write(net, sheets(format), tmp_path)
    lying = Image.Exif()
    lying[0x0112] = 6  # to be turned by a quarter
    picture(1, (31, 20)).save(tmp_path / "image.png", exif=lying)
    block = f"import sys\nfor name in {blocked}: sys.modules[name] = None\n"  # an import of it then fails
    program = block + code(sheets(format)) + "print(logits.tolist())"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = decoded(Sources(), Source(str(tmp_path), "image.png"), (8, 10), channels).pixels
    wanted = through_torch(net, "cpu")(seen.transpose(2, 0, 1)[None].copy())
    np.testing.assert_allclose(json.loads(done.stdout), wanted, rtol=1e-5, atol=1e-6)


def test_weights_are_loaded_by_kdrun_alone_and_by_their_line_of_code(tmp_path, monkeypatch):
    net, sheets = network("resnet8", channels=3, size=(8, 8))
    file = write(net, sheets("safetensors"), tmp_path)
    Image.new("RGB", (8, 8), (200, 30, 60)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code(sheets("safetensors")), names)
    seen = np.full((1, 3, 8, 8), np.array([200, 30, 60]).reshape(1, 3, 1, 1), np.uint8)
    np.testing.assert_array_equal(names["logits"].detach().numpy(), open_exported(file).classify(seen))


def test_names_of_missing_classes_are_escaped_in_the_card(shipped):
    artifact, choice = shipped
    hostile = Artifact(artifact.folder, artifact.spec, artifact.result | {"classes": ["a", "b", "c", "*<b>_x_*"]})
    assert r"without images of: \*&lt;b>\_x\_\*." in card_text((hostile, choice))
