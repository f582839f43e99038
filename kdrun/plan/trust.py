"""A teacher whose weights were not trained here must beat chance before anything learns from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray

from kdrun.artifact import Artifact, Damaged
from kdrun.data.sets import Dataset
from kdrun.evaluation.chance import LEVEL, better_than_chance, largest_share
from kdrun.plan.waves import Entry
from kdrun.records import Part
from kdrun.signals import StopFlag
from kdrun.store import Store
from kdrun.training.measure import measure_answers, measure_images
from kdrun.training.networks import build_model, load_model, not_finite, on_device

log = logging.getLogger(__name__)


def refuse_chance(entries: Sequence[Entry], dataset: Dataset, store: Store, device: torch.device) -> None:
    """Raise ValueError if a teacher that was not trained on these images is no better than chance on them.

    It is measured on the validation images, or on the training images if there are too few validation images to tell.
    """
    for entry in (entry for entry in entries if entry.unverified):
        if entry.request is not None and entry.request.answers is not None:
            answered = measure_answers(entry.request.answers, dataset.train)
            _refuse(entry, answered.accuracy, answered.labels.numpy(), "answered training")
            continue
        few = dataset.val is None or largest_share(dataset.val.labels.cpu().numpy()) ** len(dataset.val) >= LEVEL
        part, images = ("training", dataset.train) if few or dataset.val is None else ("validation", dataset.val)
        labels = images.labels.cpu().numpy()
        accuracy = _recorded(entry, "train" if few else "val", store)
        if accuracy is None:
            own = entry.training
            network = load_model(own) if isinstance(own, Artifact) else build_model(own.spec, weights=own.weights)
            with StopFlag() as stop:
                measured = measure_images(on_device(network, device), images, entry.spec, device, stop)
            if not bool(measured.logits.isfinite().all()):
                raise ValueError(not_finite(entry.source, part))
            accuracy = measured.accuracy
        _refuse(entry, accuracy, labels, part)


def _refuse(entry: Entry, accuracy: float, labels: NDArray[np.integer], part: str) -> None:
    """Raise ValueError if a teacher's accuracy on images with these labels (N,) is no better than chance."""
    if not better_than_chance(accuracy, labels):
        raise ValueError(
            f"{entry.source}: its accuracy on {len(labels):,} {part} images is {100 * accuracy:.2f}%, no better "
            f"than chance (the largest class has {100 * largest_share(labels):.2f}%). Are its classes in another "
            "order, were its images normalised differently, or is it the wrong file? "
            f"{entry.source.partition('=')[0].rpartition('.')[0]}.trust=true uses it anyway"
        )


def _recorded(entry: Entry, part: Part, store: Store) -> float | None:
    """Return the accuracy that was measured when the weights were adopted into the store, or None."""
    artifact = None
    with suppress(Damaged):  # a damaged artifact is set aside later, when it is obtained
        artifact = store.find(entry.spec.fingerprint) if entry.request is not None else None
    return artifact.accuracy(part) if artifact is not None and artifact.finished else None
