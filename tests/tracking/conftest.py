"""Small real trainings whose trackers can be chosen, and what they leave in history.csv to hold a tracker against."""

import csv
from dataclasses import dataclass, field

import pytest
import safetensors.torch
import torch

from kdrun.signals import Interrupted, StopFlag
from kdrun.store import Store
from kdrun.tracking.base import Command, Tracking
from kdrun.training.obtain import Obtainer
from kdrun.training.settings import Settings
from tests.faults.conftest import desk  # noqa: F401
from tests.training.conftest import digits, request_for  # noqa: F401

STEPS = 5  # batches of an epoch


class Stop(StopFlag):
    """A signal that comes after some batches."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def after_batch(self):
        self.left -= 1
        self.raised = self.left <= 0
        return self.raised


@dataclass
class Place:
    """A folder `outputs`, and trainings there."""

    outputs: object
    runs: list = field(default_factory=list)

    def command(self, run="run"):
        """Return a command with a run folder of that name."""
        return Command("distill", "kdrun distill T=4", self.outputs / "runs" / "distill" / run, self.outputs)

    def train(self, requests, tracking=None, *, batches=None):
        """Train; with `batches`, until a signal comes after as many, and give nothing."""
        stop = StopFlag() if batches is None else Stop(batches)
        store = Store(self.outputs / "store")
        obtainer = Obtainer(
            Settings(store, torch.device("cpu"), stop, "kdrun distill T=4", tracking=tracking or Tracking())
        )
        if batches is None:
            return obtainer.obtain(requests)
        with pytest.raises(Interrupted):
            obtainer.obtain(requests)
        return []


@pytest.fixture
def place(tmp_path):
    """An empty place."""
    return Place(tmp_path / "outputs")


def history(artifact):
    """Return the rows of an artifact's history.csv, as numbers."""
    with (artifact.folder / "history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def weights(artifact):
    return safetensors.torch.load_file(artifact.folder / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def without_time(rows):
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]
