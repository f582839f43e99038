"""Listings answer what is damaged, foreign or unreadable with a row and go on; unusable paths get a sentence."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile

import pytest

from kdrun import cli
from tests import warm
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
    lines = desk.runs("runs", COLUMNS="400").splitlines()
    notes = dict(line.split(": unreadable: ") for line in lines if ": unreadable: " in line)
    assert {name: why[:40].rstrip() for name, why in notes.items()} == {
        "000001": "run.json is damaged (Expecting property",
        "000002": "run.json is damaged (it is not a JSON ob",
        "000003": "comparison.json is damaged (rows is not",
        "000004": "run.json is damaged (it is not a regular",
        "000005": "sweep.json is damaged (Expecting value:",
        "000005/0": "run.json is damaged (it has no artifacts",
        "caf�, my notes": "no run.json",
    }
    rows = lines[lines.index("") + 3 : lines.index("", lines.index("") + 1)]
    assert sum("unreadable" in row for row in rows) == 8 and len(rows) == 11
    output = " ".join(desk.runs("report", COLUMNS="400").split())
    assert (
        output.count("unreadable: ") == 7 and "my notes, caf�: unreadable: no run.json" in output and "-16.39" in output
    )
    data = json.loads((desk.folder / "outputs" / "report" / "report.json").read_text())
    assert sum(run["status"] == "unreadable" for run in data["runs"]) == 8
    assert "-16.39" in desk.runs("report", str(sweeps / "2026-11-26_20-42-00-000005"), RUN)


LONG, BYTES = "x" * 5000, os.fsdecode(b"caf\xe9")
UNUSABLE = {
    "~nobody-at-all/x": "~nobody-at-all/x: there is no such user",
    LONG: "(5000 characters): File name too long",
    BYTES: "caf�: it is not valid UTF-8",
    "a\0b": "it contains a NUL character",
    "file": "file is a file",
    "file/below": "file is a file",
}


@pytest.mark.parametrize("typed", UNUSABLE, ids=["home", "long", "bytes", "nul", "file", "below"])
def test_a_path_that_nothing_can_have_is_refused_in_a_sentence_by_every_listing(tmp_path, monkeypatch, capsys, typed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for words in (["runs", f"outputs={typed}"], ["report", f"outputs={typed}"], ["report", "--to", typed],
                  ["predict", "latest", "x.png", f"outputs={typed}"]):  # fmt: skip
        with pytest.raises(SystemExit) as left:
            cli.main(words)
        output = capsys.readouterr().err
        assert (left.value.code, output.count("\n")) == (2, 1) and UNUSABLE[typed] in output, output
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_composed_verbs_refuse_such_a_path_too(desk):
    desk.write("file")
    for words, variables in (
        (["train", "baseline", f"outputs={LONG}"], {}),
        (["evaluate", RUN, f"outputs={LONG}"], {}),
        (["export", RUN, "outputs=file/below"], {}),
        (["distill"], {"KDRUN_OUTPUTS": BYTES}),
    ):
        output = desk.refuses(*words, **variables)
        assert output.count("\n") == 1 and "outputs=" in output, output


NO_ROOM = """
    import resource, signal, sys
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # as if the disk were full
    from kdrun import cli
    cli.main(sys.argv[1:])
"""


def test_a_full_or_read_only_place_is_refused_before_anything_is_written(desk):
    before = desk.listing()
    words = [sys.executable, "-c", textwrap.dedent(NO_ROOM), "report"]
    done = subprocess.run(words, cwd=desk.folder, capture_output=True, text=True, env=warm.environment())
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "cannot be written (File too large" in done.stderr
    assert desk.listing() == before
    assert "/proc cannot be written" in desk.refuses("report", "--to", "/proc/x")
    assert "/proc cannot be written" in desk.refuses("train", "baseline", "outputs=/proc/x")
