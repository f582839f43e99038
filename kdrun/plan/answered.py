"""A teacher given as a file of its answers: the request for it, and which students can learn from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kdrun import augment, losses
from kdrun.data import answers
from kdrun.data.sets import Dataset
from kdrun.spec import ANSWERS, Spec
from kdrun.training.request import Request, Sets

log = logging.getLogger(__name__)


def teacher(file: str, dataset: Dataset, data: Mapping[str, Any]) -> Request:
    """Return the request for a teacher that is a file of answers; `data` describes the images, without augmentation.

    Raise ValueError if the file does not fit the data set, or if the network that gave the answers was trained on
    images that are held out here.
    """
    given = answers.read(file, dataset)
    _refuse_seen(given, data)
    spec = Spec(
        data=data,
        model={
            "use": ANSWERS,
            "num_classes": dataset.num_classes,
            "in_channels": dataset.in_channels,
            "image_size": list(dataset.image_size),
        },
        objective={},
        recipe={"adopted": given.digest},
        seed=0,
        precision="fp32",
    )
    sets = Sets(dataset.train, dataset.val, dataset.test, dataset.classes)
    return Request("teacher", dataset.name, "answers", spec, sets, weights=file, answers=given)


def check(student: Request, file: str, dataset: Dataset, *, fixed: bool) -> str:
    """Return a remark on a student that learns from the answers in a file; empty if there is none.

    Raise ValueError if an image has no answer, if a loss compares two views or more than logits, if the student sees
    mixed images, or if it sees augmented images and `fixed` is not set.
    """
    answers.read(file, dataset).rows(dataset, student.sets.train)
    name = f"teacher=answers teacher.file={file}"
    terms = student.spec.objective
    for term, node in terms.items():
        cls = losses.find(node["use"])
        if cls.needs_strong:
            raise ValueError(
                f"loss.{term}: compares two views of each image, but {name} has answers to one; choose a loss of one "
                "view, such as loss=kd"
            )
        if cls.needs_teacher and not cls.logits_only:
            raise ValueError(
                f"loss.{term}: compares more than logits, but {name} has only logits; choose a loss of logits, such "
                "as loss=kd, loss=dkd or loss=dist"
            )
    seen = augment.of_spec(student.spec.data, dataset.image_size)
    if seen.form_count == 1 or not (seen.stages or seen.mixings):
        return f"{name} teacher.fixed=true: has no effect without an augment that changes the images" if fixed else ""
    if seen.mixings:
        raise ValueError(
            f"{name}: has answers to single images without augmentation, but mixup and cutmix make one of two; type "
            "augment=none, or teacher.fixed=true with an augment without them, such as augment=crop_flip"
        )
    if not fixed:
        raise ValueError(
            f"{name}: has answers to images without augmentation, but the student would see augmented ones; type "
            "augment=none, or teacher.fixed=true to use the answers all the same"
        )
    return f"{name}: its answers are for images without augmentation; the student trains on augmented ones"


def _refuse_seen(given: answers.Answers, data: Mapping[str, Any]) -> None:
    """Raise ValueError if kdrun wrote the answers, and their network was trained on images that are held out here."""
    seen = given.about.get("split")
    if given.about.get("data") != data["digest"] or not seen or not data["val_fraction"]:
        return
    if any(seen.get(key) != data[key] for key in ("val_fraction", "split_seed")):
        raise ValueError(
            f"teacher.file={given.typed}: its network was trained with dataset.val_fraction={seen['val_fraction']:g} "
            f"dataset.split_seed={seen['split_seed']}, so it has seen images that are held out here; type the same "
            "values, or write the answers of another network"
        )
