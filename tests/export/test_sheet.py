"""The sheet that travels with an exported network is read back as it was, or refused in words."""

import json
from pathlib import Path

import pytest

from kdrun import checks
from kdrun.export.sheet import NAME, Sheet, in_folder, missing
from tests.export.given import network

HERE = Path("somewhere") / NAME


@pytest.fixture(scope="module")
def sheet():
    return network("mlp", hidden=[4])[1]("onnx")


def test_what_was_written_is_read_back(sheet):
    assert Sheet.from_json(sheet.json(), HERE) == sheet
    whole = json.loads(sheet.json())
    assert whole["input"]["shape"] == ["batch", 1, 8, 8] and whole["output"]["shape"] == ["batch", 3]
    assert whole["preprocessing"]["image_size"] == [8, 8] and whole["classes"] == ["cat", "dog", "größe"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kdrun_export": 2}, "newer kdrun"),
        ({"classes": None}, "damaged"),
        ({"preprocessing": {"channels": 1}}, "has no 'image_size'"),
        ({"preprocessing": {"channels": 1, "image_size": [8]}}, "damaged"),
    ],
)
def test_what_is_damaged_or_newer_is_refused_by_name(sheet, change, message):
    with pytest.raises(ValueError, match=rf"^somewhere/kdrun.json: .*{message}"):
        Sheet.from_json(json.dumps(json.loads(sheet.json()) | change), HERE)


@pytest.mark.parametrize("text", ["", "[]", "7", "{}", "{"])
def test_what_is_no_sheet_at_all_is_refused(text):
    with pytest.raises(ValueError, match="is not a kdrun export"):
        Sheet.from_json(text, HERE)


def test_a_folder_is_an_export_if_a_sheet_lies_in_it_with_its_file(sheet, tmp_path):
    assert in_folder(tmp_path) is None
    (tmp_path / NAME).write_text(sheet.json())
    with pytest.raises(ValueError, match=r"its model\.onnx is missing; export it again"):
        in_folder(tmp_path)
    (tmp_path / "model.onnx").touch()
    assert in_folder(tmp_path) == tmp_path / "model.onnx"


def test_without_the_extra_onnx_says_what_to_install_and_the_others_need_nothing(monkeypatch):
    there = checks.installed
    monkeypatch.setattr(checks, "installed", lambda name: name not in ("onnx", "onnxruntime") and there(name))
    assert missing("onnx") == (
        "format=onnx: needs onnx, onnxruntime, not installed here; type pip install 'kdrun[onnx]'"
    )
    assert missing("safetensors") is missing("torch_export") is None
