"""Check weights that were trained elsewhere: compare their recorded classes and images with this data set's."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdrun.data.sets import Dataset
from kdrun.export.sheet import sheet_of

log = logging.getLogger(__name__)


def refuse_other_classes(source: str, theirs: Sequence[str], dataset: Dataset) -> None:
    """Raise ValueError if a teacher's classes are not those of the data set, in the same order."""
    ours, name = list(dataset.classes), f"dataset={dataset.name}"
    if list(theirs) != ours:
        first = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), None)
        where = "" if first is None else f"; class {first} is {theirs[first]!r} there and {ours[first]!r} here"
        raise ValueError(
            f"{source}: it has {len(theirs)} classes and {name} has {len(ours)}{where}; "
            "choose a teacher of the same classes in the same order"
        )


def refuse_other_images(source: str, seen: Mapping[str, Any], here: Mapping[str, Any], dataset: Dataset) -> None:
    """Raise ValueError if a teacher takes images of another size or number of channels, or saw validation images.

    `seen` (the teacher's) and `here` describe data as a spec does, with `in_channels` and `image_size` added.
    """
    name = f"dataset={dataset.name}"
    for key in ("in_channels", "image_size"):
        if seen[key] != here[key]:
            raise ValueError(
                f"{source}: it was trained on images of {key} {seen[key]}, and {name} has {here[key]}; "
                "train the teacher on this data set"
            )
    if seen["digest"] != here["digest"]:
        log.warning("%s was trained on other data than %s: make sure that it saw none of its images", source, name)
    elif here["val_fraction"] and any(seen[key] != here[key] for key in ("val_fraction", "split_seed")):
        raise ValueError(
            f"{source}: it was trained with dataset.val_fraction={seen['val_fraction']:g} dataset.split_seed="
            f"{seen['split_seed']}, so it has seen images that are held out here; type the same values, or train it "
            f"again"
        )


def start_warning(source: str, file: str, dataset: Dataset) -> str:
    """Return how the data that weights were trained on differ from this data set; empty if equal or unknown.

    Raise ValueError if a class of both has different numbers: the network would start with permuted classes.
    """
    sheet = sheet_of(Path(os.path.expanduser(file)))
    if sheet is None:
        return ""
    for i, name in enumerate(sheet.classes):
        if name in dataset.classes and (here := dataset.classes.index(name)) != i:
            raise ValueError(
                f"{source}={file}: its class {i} is {name!r}, which is class {here} of dataset={dataset.name}; start "
                "from weights with the classes in the same order, or from none"
            )
    parts = [] if sheet.classes == dataset.classes else [f"classes {', '.join(sheet.classes[:3])}…"]
    parts += [] if sheet.image_size == dataset.image_size else ["images of {1}×{0}".format(*sheet.image_size)]
    parts += [] if (sheet.mean, sheet.std) == (tuple(dataset.mean), tuple(dataset.std)) else ["another normalisation"]
    return (
        f"{source}={file}: was trained with {' and '.join(parts)}; training continues from its weights" if parts else ""
    )
