"""Listings go on past what is damaged, foreign or unreadable, and answer it with a row; unusable paths get a sentence."""

import json
import os
import resource
import shutil
import subprocess
import sys
import zipfile

import pytest

from kdrun import cli
from tests.cli.conftest import Desk
from tests.faults.test_files_believed import BEFORE, RUN, SWEEP


@pytest.fixture
def desk(tmp_path):
    """A folder with a run and a sweep of two cells."""
    with zipfile.ZipFile(BEFORE) as archive:
        archive.extractall(tmp_path / "outputs")
    return Desk(tmp_path)


def test_every_entry_that_cannot_be_read_is_a_row_and_the_others_are_listed(desk):
    runs, sweeps = desk.folder / "outputs" / "runs" / "distill", desk.folder / "outputs" / "sweeps" / "distill"
    damage = {
        "2026-11-26_20-41-00-000001": ("run.json", "{"),
        "2026-11-26_20-41-00-000002": ("run.json", "[]"),
        "2026-11-26_20-41-00-000003": ("comparison.json", '{"rows": 3}'),
        "2026-11-26_20-41-00-000004": ("run.json", None),
    }
    for name, (file, text) in damage.items():
        shutil.copytree(runs / RUN, runs / name)
        (runs / name / file).unlink()
        if text is not None:
            (runs / name / file).write_text(text)
    (runs / "2026-11-26_20-41-00-000004" / "run.json").mkdir()
    os.mkdir(os.fsencode(runs) + b"/caf\xe9")
    (runs / "my notes").mkdir()
    (runs / "a file").touch()
    shutil.copytree(sweeps / SWEEP, sweeps / "2026-11-26_20-42-00-000005")
    (sweeps / "2026-11-26_20-42-00-000005" / "sweep.json").write_text("[")
    (sweeps / "2026-11-26_20-42-00-000005" / "0" / "run.json").write_text('{"status": 3}')
    lines = desk.runs("runs").splitlines()
    rows = {line.split("  ")[0]: line for line in lines if "unreadable: " in line}
    assert {name: row.partition("unreadable: ")[2].rstrip(" –")[:40] for name, row in rows.items()} == {
        "2026-11-26_20-41-00-000001": "run.json is damaged (Expecting property ",
        "2026-11-26_20-41-00-000002": "run.json is damaged (it holds no JSON ob",
        "2026-11-26_20-41-00-000003": "comparison.json is damaged (rows is no l",
        "2026-11-26_20-41-00-000004": "run.json is damaged (it is no regular fi",
        "2026-11-26_20-42-00-000005": "sweep.json is damaged (Expecting value: ",
        "2026-11-26_20-42-00-000005/0": "run.json is damaged (it holds no artifac",
        "caf�": "no run.json",
        "my notes": "no run.json",
    }
    assert sum(" done " in line for line in lines) == 4
    said = " ".join(desk.runs("report").split())
    assert said.count("unreadable: ") >= 8 and "-16.39" in said and "caf�: unreadable: no run.json" in said.replace("my notes, ", "")
    data = json.loads((desk.folder / "outputs" / "report" / "report.json").read_text())
    assert sum(run["status"] == "unreadable" for run in data["runs"]) == 8
    assert "-16.39" in desk.runs("report", str(sweeps / "2026-11-26_20-42-00-000005"), RUN)
