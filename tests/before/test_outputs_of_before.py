"""An outputs folder that an earlier kdrun wrote is read, found again and resumed: outputs.zip, of 2026-11-26.

It holds a distillation of two seeds, a sweep of two cells, and a baseline that was killed in its second epoch:
kdrun distill …, kdrun distill -m T=1,8 …, kdrun train baseline … recipe.epochs=3. Only tables and pictures were
left out, and places renamed.
"""

import json
import re
import zipfile
from pathlib import Path

import pytest

from tests.cli.conftest import Desk

SAME = ["teacher=digits_student", "student=mlp", "student.hidden=[8]", "recipe.epochs=2", "teacher.recipe.epochs=2",
        "device=cpu"]  # fmt: skip
FIRST, SWEEP = "2026-11-26_18-08-46-aae95a", "2026-11-26_18-08-56-705bd3"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A folder with the outputs of before."""
    desk = Desk(tmp_path_factory.mktemp("before"))
    with zipfile.ZipFile(Path(__file__).parent / "outputs.zip") as archive:
        archive.extractall(desk.folder / "outputs")
    return desk


def accuracies(message):
    """The test accuracies of a printed table, by role."""
    return {role: row.split()[-7:] for role, row in re.findall(r"^(teacher|baseline|student) +(.*)$", message, re.M)}


def test_what_was_written_before_is_listed_reported_and_measured(old):
    output = old.runs("runs")
    assert "3 runs under outputs" in output and "22.50" in output and "★" in output
    output = " ".join(old.runs("report", FIRST, SWEEP).split())
    assert "3 students" in output and "-10.83" in output
    assert re.search(r"baseline +1 +7e5f96b64fe9 .* \+0\.00", old.runs("evaluate", FIRST))
    assert "exported: " in old.runs("export", FIRST)


def test_what_was_trained_before_is_found_and_compared_to_the_same_numbers(old):
    kept = json.loads((old.folder / "outputs/runs/distill" / FIRST / "comparison.json").read_text())
    output = old.runs("distill", *SAME, "seeds=2")
    assert output.count(": found ") == 5 and ": training " not in output
    (again,) = [p for p in (old.folder / "outputs/runs/distill").iterdir() if p.name != FIRST]
    fresh = json.loads((again / "comparison.json").read_text())
    assert as_before(fresh["rows"]) == kept["rows"]
    for one in (*fresh["lanes"], *kept["lanes"]):
        assert one.pop("verdict")  # whose words are of its version
    assert fresh["lanes"] == kept["lanes"]
    assert ": training " not in old.runs("distill", "-m", "T=1,8", *SAME, "seeds=1")


def as_before(rows):
    """Return rows without what was not recorded then."""
    added = ("loss", "measures")
    return [row | {"points": [{k: v for k, v in p.items() if k not in added} for p in row["points"]]} for row in rows]


def test_what_was_killed_before_goes_on_from_its_checkpoint(old):
    output = old.runs("train", "baseline", *SAME[1:3], "recipe.epochs=3", "seeds=1", "device=cpu")
    assert "epoch 3/3" in output and "epoch 1/3" not in output
