"""Weights & Biases gets what history.csv and result.json hold; its own library writes it in offline mode."""

import dataclasses
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdrun import checks
from kdrun.tracking.base import Tracking
from tests.cli.conftest import Desk
from tests.tracking.conftest import STEPS, history, without_time


class Run:
    """A run as wandb.init returns it, which remembers what it is given."""

    def __init__(self, settings, starting_step):
        self.settings, self.starting_step = settings, starting_step
        self.logged, self.summary, self.code = [], {}, None

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.code = exit_code


class Library:
    """Stands for wandb: makes a folder for each run, as it does."""

    def __init__(self):
        self.runs, self.known = [], 0  # epochs that the server has of a run

    def init(self, **settings):
        folder = Path(settings["dir"], "wandb", f"offline-run-2026_{len(self.runs)}-{settings['id']}")
        folder.mkdir(parents=True)
        self.runs.append(Run(settings, self.known))
        return self.runs[-1]


@pytest.fixture
def library(monkeypatch):
    """Weights & Biases without its library, and with no variables of its own but these."""
    for name in ("WANDB_DIR", "WANDB_PROJECT", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    fake = Library()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=fake.init))
    return fake


@pytest.fixture
def door(place, monkeypatch):
    """Return a function that makes a tracking for a command."""
    from kdrun.tracking import wandb

    for name, value in wandb.QUIET.items():
        monkeypatch.setenv(name, value)  # so that what it sets ends with the test
    return lambda run="run": Tracking("wandb", lambda: wandb.start(place.command(run)))


def test_a_run_has_the_columns_of_history_csv_the_settings_and_the_result(place, request_for, door, library):
    (artifact,) = place.train([dataclasses.replace(request_for(epochs=2), notes={"T": 4.0})], door())
    (run,) = library.runs
    rows = history(artifact)
    logged = [{"epoch": float(step), **values} for step, values in run.logged]
    assert without_time(logged) == without_time(rows) and len(rows) == 2
    settings = run.settings
    assert (settings["project"], settings["group"]) == ("kdrun-digits", "runs/distill/run")
    assert (settings["name"], settings["job_type"]) == ("baseline net seed 0", "baseline")
    given = {
        key: settings["config"][key] for key in ("T", "recipe.lr", "fingerprint", "formula", "command", "artifact")
    }
    assert given == {
        "T": 4.0,
        "recipe.lr": 0.1,
        "fingerprint": artifact.fingerprint,
        "formula": "CE(y, p_s)",
        "command": "kdrun distill T=4",
        "artifact": artifact.folder.name,
    }
    point = artifact.result["selected"]
    assert run.summary["selected.test_accuracy"] == point["test"]["accuracy"]
    assert (run.summary["selected.epoch"], run.summary["status"], run.code) == (point["epoch"], "done", 0)


def test_a_resumed_training_goes_on_in_its_run_with_the_epochs_that_it_lacks(place, request_for, door, library):
    place.train([request_for()], door(), batches=2 * STEPS + 1)
    assert (library.runs[0].code, [step for step, _ in library.runs[0].logged]) == (1, [1, 2])
    library.known = 3  # online, the run begins after its last step
    place.train([request_for()], door("again"))
    first, second = library.runs
    assert first.settings["id"] == second.settings["id"] and second.settings["resume"] == "allow"
    assert ([step for step, _ in second.logged], second.code) == ([3], 0)


def test_a_training_anew_is_another_run_and_one_that_diverges_has_failed(place, request_for, door, library):
    place.train([request_for(lr=1e30), request_for(epochs=1)], door())
    lost, kept = sorted(library.runs, key=lambda run: -run.code)
    assert (lost.code, lost.summary["status"], kept.code) == (1, "diverged", 0) and "reason" in lost.summary
    assert len({run.settings["id"] for run in library.runs}) == 2
    assert {run.settings["reinit"] for run in library.runs} == {"create_new"}  # both at once


needs_wandb = pytest.mark.skipif(not checks.installed("wandb"), reason="needs kdrun[wandb]")


@needs_wandb
def test_the_library_itself_writes_an_offline_run_and_nothing_elsewhere(tmp_path):
    desk = Desk(tmp_path)
    (tmp_path / "home").mkdir()
    theirs = {"HOME": str(tmp_path / "home"), "WANDB_CACHE_DIR": str(tmp_path / "home")}
    words = ["train", "baseline", "recipe.epochs=1", "seeds=1", "device=cpu", "tracker=wandb"]
    output = desk.runs(*words, WANDB_MODE="offline", **theirs)
    assert "tracker=wandb; view with: wandb sync outputs/wandb/offline-run-*" in output and "failed" not in output
    (run,) = (tmp_path / "outputs" / "wandb").glob("offline-run-*/*.wandb")
    assert b"val_accuracy" in run.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "home"}


@needs_wandb
def test_without_a_key_nothing_is_asked_and_the_training_goes_on(
    place, request_for, door, caplog, monkeypatch, tmp_path
):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    (artifact,) = place.train([request_for(epochs=1)], door())
    assert artifact.finished
    (warned,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert re.match(r"tracker=wandb failed \(UsageError: .*wandb login.*training continues", warned)
