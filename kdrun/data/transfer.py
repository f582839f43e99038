"""The transfer set: the images that the student learns from, if not all of the teacher's."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kdrun.checks import nearest
from kdrun.data import listing, repeated
from kdrun.data.sets import UNLABELLED, Dataset, FileSet, ImageSet
from kdrun.data.splits import stratified
from kdrun.data.survey import Decoding, Survey, read
from kdrun.randomness import TRANSFER, key


@dataclass(frozen=True)
class TransferSet:
    """A part of the training images, or more than these. By default it is the training part itself.

    Hinton, Vinyals and Dean (arXiv:1503.02531) distil on a fraction of the data, with a class left out, and
    without labels. Raise ValueError if the fraction is outside (0, 1].
    """

    fraction: float = 1.0
    """Share of the training images that is kept, stratified."""
    seed: int = 0
    """Seed of the choice of images, independent of the training's seed."""
    omit_classes: Sequence[int | str] = ()
    """Classes whose images are left out: indices or names."""
    labels: bool = True
    """False makes every label -1: unlabelled."""
    extra: Any = None
    """Folder or .zip archive (or a list) of unlabelled images, flat or nested, to add at the data's size."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"transfer.fraction={self.fraction:g}: must lie in (0, 1]; 1 keeps all")

    def apply(self, dataset: Dataset) -> ImageSet | FileSet:
        """Return the transfer set made of the training part of `dataset`; unlabelled images have label -1.

        Raise ValueError if a class is unknown or no image is left.
        """
        images = dataset.train
        if omitted := self.omitted(dataset):
            kept = ~torch.isin(images.labels, torch.tensor(omitted, device=images.labels.device))
            images = images.subset(kept.nonzero().flatten())
        if self.fraction < 1 and len(images):
            count = round(self.fraction * len(images))
            images = images.subset(stratified(images.labels.cpu(), count, key(TRANSFER, self.seed)))
        if not len(images):
            raise ValueError(
                f"transfer.fraction={self.fraction:g} with transfer.omit_classes={list(self.omit_classes)} "
                f"leaves no image of {len(dataset.train)}; raise the fraction, or omit fewer classes"
            )
        if not self.labels:
            images = images.with_labels(torch.full_like(images.labels, UNLABELLED))
        if self.extra is not None:
            added: Any = self._added(dataset).parts["extra"]  # of the kind of dataset.train
            images = images.joined(added)
        return images

    def of_held_out(self, dataset: Dataset) -> str:
        """Return a warning if extra images are validation or test images too: equal pixels, or the same file.

        A student that learns the teacher's outputs for them is measured on images that it was trained on.
        """
        if self.extra is None:
            return ""
        survey, found = self._added(dataset), {}
        for part, images in {"validation": dataset.val, "test": dataset.test}.items():
            if isinstance(images, ImageSet):
                held = set(repeated.marks(images.images))
                found[part] = sum(mark in held for mark in survey.marks["extra"])
            elif images is not None:
                files = {os.path.realpath(str(source)) for source in images.sources}
                found[part] = sum(os.path.realpath(str(source)) in files for source in survey.sources["extra"])
        if not any(found.values()):
            return ""
        counts = " and ".join(f"{count:,} {part}" for part, count in found.items() if count)
        return (
            f"transfer.extra={self.extra}: {counts} images are among the {len(survey.sources['extra']):,} extra ones; "
            "the student learns the teacher's outputs for them, which inflates its accuracy: remove them there"
        )

    def omitted(self, dataset: Dataset) -> list[int]:
        """Return the labels of the omitted classes, in rising order. A number is a label, a word a class name."""
        labels = set()
        for name in self.omit_classes:
            if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < dataset.num_classes:
                labels.add(name)
            elif isinstance(name, str) and name in dataset.classes:
                labels.add(dataset.classes.index(name))
            else:
                raise ValueError(
                    f"transfer.omit_classes: {dataset.name} has no class {name}."
                    f"{nearest(str(name), dataset.classes)} Type numbers from 0 to "
                    f"{dataset.num_classes - 1}, or names: {', '.join(dataset.classes)}"
                )
        return sorted(labels)

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        """Return all that determines the set, given the training part, as JSON for a spec; extra images by digest."""
        return {
            "fraction": self.fraction,
            "seed": self.seed if self.fraction < 1 else 0,
            "omit_classes": self.omitted(dataset),
            "labels": self.labels,
            "extra": None if self.extra is None else self._digest(dataset),
        }

    def _digest(self, dataset: Dataset) -> str:
        return hashlib.sha256(self._added(dataset).digests["extra"].encode()).hexdigest()

    def _added(self, dataset: Dataset) -> Survey:
        """Return the extra images, with their digest, as the part "extra"."""
        key = "transfer.extra"
        sources = listing.images_in(listing.roots(self.extra, key), key)
        how = Decoding(dataset.image_size, dataset.in_channels, fixed=True, skip=False)
        unlabelled = torch.full((len(sources),), UNLABELLED)
        resident = isinstance(dataset.train, ImageSet)
        return read({"extra": sources}, {"extra": unlabelled}, how, resident=resident)
