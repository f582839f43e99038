"""Small real trainings on scikit-learn's digits, made from specs as the verbs make them."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch

from kdrun import data
from kdrun.config import Recipe
from kdrun.data.transfer import TransferSet
from kdrun.signals import Interrupted, StopFlag
from kdrun.spec import Spec
from kdrun.store import Store
from kdrun.training.obtain import Obtainer
from kdrun.training.request import Request, Sets
from kdrun.training.settings import Settings

CE = {"use": "ce.CE", "weight": 1.0, "label_smoothing": 0.0}
KD = {"use": "kd.KD", "weight": 0.9, "T": 4.0, "teacher_T": None, "student_T": None, "T_squared": True}
TEACHER = {"use": "cnn.PlainCnn", "arguments": {"widths": [8], "convolutions": 1, "dropout": 0.0}}
HELPED = {"ce": {**CE, "weight": 0.1}, "kd": KD}
STUDENT = {"use": "mlp.Mlp", "arguments": {"hidden": [16], "dropout": 0.2}}  # dropout draws random numbers


@pytest.fixture(scope="session")
def digits():
    """A tenth of the digits, with augmentation on."""
    whole = data.load("digits.digits", name="digits", val_fraction=0.1, split_seed=0)
    some = TransferSet(fraction=0.1).apply(whole)
    return replace(whole, train=some)


@pytest.fixture
def request_for(digits):
    """Return a function that makes requests: role, model, objective, seed, teachers and changed recipe keys."""

    def make(role="baseline", model=STUDENT, objective=None, seed=0, teachers=(), sets=None, **recipe):
        settings = vars(Recipe(epochs=3, batch_size=32, lr=0.1, momentum=0.9, schedule="cosine")) | recipe
        spec = Spec(
            data={
                "digest": digits.digest,
                "transfer": None,
                "crop_padding": 1,
                "flip": True,
                "mean": list(digits.mean),
                "std": list(digits.std),
            },
            model={**model, "num_classes": 10, "in_channels": 1, "image_size": [8, 8], "digest": None},
            objective=objective or {"ce": CE},
            recipe=settings,
            seed=seed,
            precision="fp32",
            teachers=tuple(teachers),
        )
        whole = sets or Sets(digits.train, digits.val, digits.test, digits.classes)
        return Request(role, "digits", "net", spec, whole)

    return make


@pytest.fixture
def new_obtainer(tmp_path):
    """Return a function that opens a obtainer on the CPU, with its store in a folder of that name."""

    def make(name="store", **settings):
        return Obtainer(Settings(Store(tmp_path / name), torch.device("cpu"), StopFlag(), "a test", **settings))

    return make


@pytest.fixture
def trained_teacher(request_for, new_obtainer):
    """A teacher that is already in the store called `store`, with its request."""
    request = request_for("teacher", TEACHER, epochs=2)
    new_obtainer().obtain([request])
    return request


def interrupt(obtainer, requests, steps=7):
    """Begin trainings, and let a signal come after so many steps: by default in the middle of an epoch."""
    taken = 0

    def reach(site):
        nonlocal taken
        taken += site == "after_batch"
        if taken == steps:
            obtainer.stop.raised = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdrun.faults.reach", reach)
        with pytest.raises(Interrupted):
            obtainer.obtain(requests)


def weights(artifact):
    return safetensors.torch.load_file(artifact.folder / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def without_time(artifact):
    rows = [line.split(",") for line in (artifact.folder / "history.csv").read_text().splitlines()]
    timed = {rows[0].index("seconds"), rows[0].index("images_per_second")}
    return [[v for i, v in enumerate(row) if i not in timed] for row in rows]
