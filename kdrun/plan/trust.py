"""What is known of weights that were not trained here, held against the data before anything learns from them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kdrun.data.sets import Dataset
from kdrun.evaluation.chance import LEVEL, better_than_chance, largest_share
from kdrun.export.read import sheet_of
from kdrun.store import Store
from kdrun.training.finish import Finisher
from kdrun.training.networks import build_model, load_model, on_device
from kdrun.training.stop import StopFlag

if TYPE_CHECKING:
    from kdrun.plan.waves import Entry

log = logging.getLogger(__name__)


def refuse_other_classes(source: str, theirs: Sequence[str], dataset: Dataset) -> None:
    """Raise ValueError where a teacher knows other classes than the data set, or in another order."""
    ours, name = list(dataset.classes), f"dataset={dataset.name}"
    if list(theirs) != ours:
        first = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), None)
        where = "" if first is None else f"; class {first} is {theirs[first]!r} there and {ours[first]!r} here"
        raise ValueError(
            f"{source}: it knows {len(theirs)} classes and {name} has {len(ours)}{where}; "
            "choose a teacher of the same classes in the same order"
        )


def refuse_other_images(source: str, seen: Mapping[str, Any], here: Mapping[str, Any], dataset: Dataset) -> None:
    """Raise ValueError where a teacher takes images of another size or with other channels, or saw validation images.

    `seen` and `here` are descriptions of data, as a spec's, with `in_channels` and `image_size`.
    """
    name = f"dataset={dataset.name}"
    for key in ("in_channels", "image_size"):
        if seen[key] != here[key]:
            raise ValueError(
                f"{source}: it was trained on images of {key} {seen[key]}, and {name} has {here[key]}; "
                "train the teacher on this data set"
            )
    if seen["digest"] != here["digest"]:
        log.warning("%s was trained on other data than %s: see to it that it saw none of its images", source, name)
    elif here["val_fraction"] and any(seen[key] != here[key] for key in ("val_fraction", "split_seed")):
        raise ValueError(
            f"{source}: it was trained with dataset.val_fraction={seen['val_fraction']:g} dataset.split_seed="
            f"{seen['split_seed']}, so it has seen images that are held out here; type the same, or train it anew"
        )


def start(source: str, file: str, dataset: Dataset) -> str:
    """Return how what the weights were trained on differs from what is here; nothing if it does not, or is not known.

    Raises ValueError where a class that both know has another number: the network would begin with swapped classes.
    """
    sheet = sheet_of(Path(file).expanduser())
    if sheet is None:
        return ""
    for i, name in enumerate(sheet.classes):
        if name in dataset.classes and (here := dataset.classes.index(name)) != i:
            raise ValueError(
                f"{source}={file}: its class {i} is {name!r}, which is class {here} of dataset={dataset.name}; start "
                "from weights with the classes in the same order, or from none"
            )
    told = [] if sheet.classes == dataset.classes else [f"classes {', '.join(sheet.classes[:3])}…"]
    told += [] if sheet.image_size == dataset.image_size else ["images of {1}×{0}".format(*sheet.image_size)]
    alike = (sheet.mean, sheet.std) == (tuple(dataset.mean), tuple(dataset.std))
    told += [] if alike else ["another normalisation"]
    return f"{source}={file}: was trained with {' and '.join(told)}; it goes on from there" if told else ""


def refuse_chance(entries: Sequence[Entry], dataset: Dataset, store: Store, device: torch.device) -> None:
    """Raise ValueError where a teacher that was not trained on these images is no better than chance on them.

    It is measured on the validation images; where there are none, or too few to tell, on the training images.
    """
    for entry in (entry for entry in entries if entry.doubted):
        few = dataset.val is None or largest_share(dataset.val.labels.cpu().numpy()) ** len(dataset.val) >= LEVEL
        part, images = ("training", dataset.train) if few or dataset.val is None else ("validation", dataset.val)
        labels = images.labels.cpu().numpy()
        accuracy = _recorded(entry, "train" if few else "val", store)
        if accuracy is None:
            request = entry.request
            network = (
                load_model(entry.artifact) if request is None else build_model(entry.spec, weights=request.weights)
            )
            with StopFlag() as stop:
                finisher = Finisher(device, stop, command="")
                accuracy = finisher.measure(on_device(network, device), images, entry.spec).accuracy
        if not better_than_chance(accuracy, labels):
            raise ValueError(
                f"{entry.source}: it has {100 * accuracy:.2f}% of the {len(images):,} {part} images right, no more "
                f"than chance (the largest class has {100 * largest_share(labels):.2f}%). Are its classes in another "
                f"order, were its images normalised otherwise, or is it another file? {entry.trust}=true takes it all "
                "the same"
            )


def _recorded(entry: Entry, part: str, store: Store) -> float | None:
    """Return the accuracy that was measured when the weights were taken into the store."""
    found = store.find(entry.spec.fingerprint) if entry.request is not None else None
    point = None if found is None or not found.finished else found.result["selected"][part]
    return None if point is None else float(point["accuracy"])
