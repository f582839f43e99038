"""Training steps of any method on any device, for the tests of what a step does besides computing."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdrun import augment, losses
from kdrun.config import Recipe
from kdrun.data.batches import Batches
from kdrun.data.sets import ImageSet
from kdrun.losses.base import Setting
from kdrun.models.cnn import PlainCnn
from kdrun.training.cohort import Unit
from kdrun.training.learner import Learner
from kdrun.training.table import Place, Table
from kdrun.training.teaching import Teaching
from tests.data.given import shifted
from tests.losses.given import node

IMAGES, BATCH, CLASSES = 72, 16, 10  # the last batch has 8
EVERYTHING = {"clip_norm": 1.0, "ema_decay": 0.9, "lr": 0.01}  # whatever a recipe may add to a step


def network(widths: list[int], seed: int, dropout: float = 0.0) -> PlainCnn:
    """A small network for 8×8 images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PlainCnn(CLASSES, 1, (8, 8), widths, convolutions=1, dropout=dropout)


def teacher(device: torch.device) -> nn.Module:
    """A larger network, which is not trained."""
    return network([16, 32, 32], seed=1).to(device, memory_format=torch.channels_last).requires_grad_(False).eval()


def batches(device: torch.device, crop_padding: int = 1, *, strong: Mapping[str, Any] | None = None) -> Batches:
    """Images with augmentation, as a training sees them; with `strong` in a second view too."""
    images = torch.arange(IMAGES * 64).remainder(251).to(torch.uint8).view(IMAGES, 1, 8, 8)
    settings = {
        "batch_size": BATCH,
        "seed": 0,
        "augmentation": shifted(crop_padding, True),
        "mean": [0.5],
        "std": [0.25],
    }
    data = {"crop_padding": crop_padding, "flip": True, "mean": settings["mean"]}
    second = augment.strong_of_spec(data, strong, (8, 8))
    return Batches(ImageSet(images, labels()), **settings, strong=second, device=device)


def teaching(batches: Batches, device: torch.device, precision: str = "fp32", *, cached: bool = False) -> Teaching:
    """One teacher, as a cohort asks it."""
    tables = [Table(batches.augmentation.form_count or 0, IMAGES, Place(device))] if cached else []
    for table in tables:
        table.tested = True  # it would wait for the device once
    return Teaching([teacher(device)], batches, precision=precision, device=device, tables=tables)


def labels() -> Tensor:
    """The classes in turn."""
    return torch.arange(IMAGES) % CLASSES


def unit(name: str, device: torch.device, precision: str = "fp32", **recipe: object) -> Unit:
    """What trains with one loss beside the labels: a learner, or two that are each other's teachers."""
    learners = []
    for seed in (0, 1) if name == "dml" else (0,):
        student = network([8, 16, 24], seed, dropout=0.1)
        objective = losses.build({"ce": {"use": "ce.CE", "weight": 1.0}, name: node(name)})
        blank = torch.zeros(2, 1, 8, 8)
        with torch.no_grad():
            networks = (student.eval(), teacher(torch.device("cpu")))
            own, taught = (network(blank)._replace(strong=network(blank)) for network in networks)
            objective.prepare(own, [taught], Setting(IMAGES, BATCH, labels()), seed=0)
        settings = vars(Recipe(epochs=2, **(EVERYTHING | recipe)))
        learner = Learner(
            f"{name} {seed}",
            student,
            objective,
            settings,
            steps_per_epoch=-(-IMAGES // BATCH),
            seed=seed,
            precision=precision,
            device=device,
        )
        learners.append(learner)
    return Unit(learners)
