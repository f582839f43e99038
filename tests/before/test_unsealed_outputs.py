"""Outputs of before files were sealed are read for ever: unsealed.zip, of 2026-11-26.

It holds a distillation of two seeds and a sweep of two cells: kdrun distill … seeds=2 and
kdrun distill -m T=1,8 … seeds=1.
"""

import json
import re
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from kdrun.sealed import is_sealed
from tests.before.test_outputs_of_before import as_before
from tests.cli.conftest import Desk

WORDS = ["teacher=digits_student", "student=mlp", "student.hidden=[8]", "recipe.epochs=1", "teacher.recipe.epochs=1",
         "device=cpu"]  # fmt: skip
RUN, SWEEP = "2026-11-26_20-40-37-abe0df", "2026-11-26_20-40-47-d95325"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A folder with those outputs."""
    desk = Desk(tmp_path_factory.mktemp("unsealed"))
    with zipfile.ZipFile(Path(__file__).parent / "unsealed.zip") as archive:
        archive.extractall(desk.folder / "outputs")
    return desk


def test_they_are_listed_reported_measured_exported_and_used(old):
    listed, report = old.runs("runs"), " ".join(old.runs("report", RUN, SWEEP).split())
    assert "2 runs under outputs" in listed and " unclear " in listed and "★" in listed
    assert "3 students" in report and "-16.39" in report and "unreadable" not in listed + report
    assert re.search(r"baseline +0 +ef5f638ec991 .* \+0\.00", old.runs("evaluate", RUN))
    assert "exported: " in old.runs("export", RUN, "format=safetensors")
    Image.new("L", (8, 8)).save(old.folder / "digit.png")
    assert "digit.png" in old.runs("predict", RUN, "digit.png")


def test_their_trainings_are_found_and_what_is_written_anew_is_sealed(old):
    kept = json.loads((old.folder / "outputs/runs/distill" / RUN / "comparison.json").read_text())
    output = old.runs("distill", *WORDS, "seeds=2")
    assert output.count(": found ") == 5 and ": training " not in output
    (again,) = [p for p in (old.folder / "outputs/runs/distill").iterdir() if p.name != RUN]
    fresh = json.loads((again / "comparison.json").read_text())
    assert as_before(fresh["rows"]) == kept["rows"]
    for one in (*fresh["lanes"], *kept["lanes"]):
        assert one.pop("verdict")  # whose words are of its version
    assert fresh["lanes"] == kept["lanes"]
    assert is_sealed(fresh) and not is_sealed(kept)
