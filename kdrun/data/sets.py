"""Image sets, in memory or in files, and the data set that is made of them."""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdrun.data.decoders import HERE, Decoders, Task, Workers
from kdrun.data.decoding import Source
from kdrun.data.listing import listed
from kdrun.data.splits import hold_out

log = logging.getLogger(__name__)
UNLABELLED = -1
ELSEWHERE = -1
"""The origin of an image that was added to the training images."""


class Stored(NamedTuple):
    """Images before augmentation and normalisation."""

    images: Tensor
    """uint8 (N, C, H, W), channels_last"""
    labels: Tensor
    """(N,) int64, -1 = unlabelled"""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images that fit in memory."""

    images: Tensor
    """uint8 (N, C, H, W), kept channels_last"""
    labels: Tensor
    """(N,) int64, -1 = unlabelled"""
    origins: Tensor | None = None
    """(N,) int64 on the CPU: position among all stored training images, -1 = added later; None if it is not known."""

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8 and self.images.ndim == 4
        assert self.labels.dtype == torch.int64 and self.labels.shape == self.images.shape[:1]
        object.__setattr__(self, "images", self.images.contiguous(memory_format=torch.channels_last))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    @property
    def in_channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.images.shape[1]

    def subset(self, indices: Tensor) -> "ImageSet":
        """Return the images at `indices` (M,), in that order."""
        indices = indices.to(self.labels.device)
        rows = self.images.permute(0, 2, 3, 1).index_select(0, indices)
        return ImageSet(rows.permute(0, 3, 1, 2), self.labels[indices], _chosen(self.origins, indices))

    def with_labels(self, labels: Tensor) -> "ImageSet":
        """Return the same images with other labels (N,)."""
        return replace(self, labels=labels)

    def joined(self, other: "ImageSet") -> "ImageSet":
        """Return these images, then the other's."""
        images, labels = torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels])
        return ImageSet(images, labels, _lengthened(self.origins, len(other)))

    def to(self, device: torch.device | str) -> "ImageSet":
        """Return the same set on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def stored(self, plan: Sequence[Tensor], device: torch.device, workers: Workers = HERE) -> Iterator[Stored]:
        """Yield batches on `device`, one for each tensor of indices in `plan`; `workers` are not needed."""
        here = self.to(device)
        rows = here.images.permute(0, 2, 3, 1)  # contiguous: a batch is gathered as whole images
        for indices in plan:
            indices = indices.to(device)
            yield Stored(rows.index_select(0, indices).permute(0, 3, 1, 2), here.labels[indices])

    def digest(self) -> str:
        """Return the sha256 of pixels, labels and shape."""
        content = hashlib.sha256(self.images.permute(0, 2, 3, 1).cpu().numpy().data)
        return sealed(content, self.labels, self.in_channels, self.image_size)


@dataclass(frozen=True, eq=False)
class FileSet:
    """Images that stay in their files and are decoded batch by batch."""

    sources: tuple[Source, ...]
    labels: Tensor
    """(N,) int64, -1 = unlabelled"""
    image_size: tuple[int, int]
    in_channels: int
    decoders: Decoders = field(default_factory=Decoders, repr=False)
    """Shared by all sets that are made from this one."""
    origins: Tensor | None = None
    """(N,) int64: position among all stored training images, -1 = added later; None if it is not known."""

    def __len__(self) -> int:
        return len(self.sources)

    def subset(self, indices: Tensor) -> "FileSet":
        """Return the images at `indices` (M,), in that order."""
        sources = tuple(self.sources[i] for i in indices.tolist())
        origins = _chosen(self.origins, indices)
        return replace(self, sources=sources, labels=self.labels[indices.cpu()], origins=origins)

    def with_labels(self, labels: Tensor) -> "FileSet":
        """Return the same images with other labels (N,)."""
        return replace(self, labels=labels)

    def joined(self, other: "FileSet") -> "FileSet":
        """Return these images, then the other's."""
        labels, origins = torch.cat([self.labels, other.labels]), _lengthened(self.origins, len(other))
        return replace(self, sources=self.sources + other.sources, labels=labels, origins=origins)

    def to(self, device: torch.device | str) -> "FileSet":
        """Return the set itself: images go to the device batch by batch."""
        return self

    def stored(self, plan: Sequence[Tensor], device: torch.device, workers: Workers = HERE) -> Iterator[Stored]:
        """Yield batches on `device`, one for each tensor of indices in `plan`, decoded by `workers`.

        Raise RunFailed if a worker dies or is stuck, or if a file that was sound at the start can no longer be read.
        """
        rows = torch.cat(list(plan)).tolist() if plan else []  # here, since it waits for the device
        sources = (self.sources[i] for i in rows)
        tasks = (Task(tuple(islice(sources, len(indices))), self.image_size, self.in_channels) for indices in plan)
        labels = self.labels.to(device)
        decoded = self.decoders.batches(tasks, workers, pinned=device.type == "cuda")
        for indices, images in zip(plan, decoded, strict=True):
            yield Stored(images.to(device, non_blocking=True).permute(0, 3, 1, 2), labels[indices.to(device)])


def _chosen(origins: Tensor | None, indices: Tensor) -> Tensor | None:
    """Return the origins of the images at `indices` (M,)."""
    return None if origins is None else origins[indices.cpu()]


def _lengthened(origins: Tensor | None, count: int) -> Tensor | None:
    """Return the origins, followed by ELSEWHERE for each of `count` added images."""
    return None if origins is None else torch.cat([origins, torch.full((count,), ELSEWHERE)])


@dataclass(frozen=True, eq=False)
class Dataset:
    """The data of a comparison: three disjoint parts, their classes and their statistics."""

    name: str
    classes: tuple[str, ...]
    """Names, by label."""
    mean: tuple[float, ...]
    """Per channel, of pixels in [0, 1]."""
    std: tuple[float, ...]
    train: ImageSet | FileSet
    val: ImageSet | FileSet | None
    """Held out for choosing epochs and settings; None if nothing is held out."""
    test: ImageSet | FileSet
    digest: str
    """Sha256 over class names, pixels and labels, before anything is held out; file names do not count."""
    stored: int
    """Number of training images before any is held out; `origins` of `train` and `val` are positions among these."""
    names: tuple[str, ...] = ()
    """Names of the stored training images, by origin, if they are files: unique paths with forward slashes."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.test.image_size

    @property
    def in_channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.test.in_channels


def assemble(
    name: str,
    classes: Sequence[str],
    parts: "dict[str, ImageSet] | dict[str, FileSet]",
    *,
    mean: Sequence[float],
    std: Sequence[float],
    val_fraction: float,
    split_seed: int,
    digests: dict[str, str] | None = None,
    names: Sequence[str] = (),
) -> Dataset:
    """Check the parts "train", "test" and perhaps "val" of a data set, and hold images out of "train".

    If there is a "val", nothing is held out. `digests` are those of the parts, if they are known already, and `names`
    those of the images of "train".
    Raise ValueError if there is a single class, if a part has no image of a class, and if a setting is out of range.
    """
    if len(classes) < 2:
        raise ValueError(f"{name}: has a single class ({', '.join(classes)}); a classifier needs two or more")
    for part, images in parts.items():
        present = set(images.labels.tolist())
        if empty := [classes[i] for i in range(len(classes)) if i not in present]:
            raise ValueError(
                f"{name}: {part} has no image of {listed(empty)}; add some, or remove the class everywhere"
            )
    if digests is None:
        digests = {part: images.digest() for part, images in parts.items() if isinstance(images, ImageSet)}
    identity = json.dumps([list(classes), sorted(digests.items())], ensure_ascii=False)
    train, val, stored = parts["train"], parts.get("val"), len(parts["train"])
    train = replace(train, origins=torch.arange(stored))
    if val is None and val_fraction != 0:
        kept, held = hold_out(train.labels, val_fraction, split_seed)
        train, val = train.subset(kept), train.subset(held)
        _warn_of_unheld(classes, train.labels, val.labels)
    return Dataset(
        name=name,
        classes=tuple(classes),
        mean=tuple(mean),
        std=tuple(std),
        train=train,
        val=val,
        test=parts["test"],
        digest=hashlib.sha256(identity.encode()).hexdigest(),
        stored=stored,
        names=tuple(names),
    )


def _warn_of_unheld(classes: Sequence[str], train: Tensor, val: Tensor) -> None:
    """Warn about classes that have no validation images because they are too small for the held-out share."""
    kept = torch.bincount(train, minlength=len(classes)).tolist()
    held = torch.bincount(val, minlength=len(classes)).tolist()
    if unheld := [label for label, count in enumerate(held) if not count]:
        several = [kept[label] for label in unheld if kept[label] > 1]
        fraction = f", or dataset.val_fraction={math.ceil(100 / min(several)) / 100:g}" if several else ""
        log.warning(
            "validation has no image of %d of %d classes, e.g. %s (%d for training): epochs and settings are chosen "
            "without them; more images help%s",
            len(unheld),
            len(classes),
            classes[unheld[0]],
            kept[unheld[0]],
            fraction,
        )


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of uint8 images (N, C, H, W), as fractions of 255."""
    counts = [torch.bincount(images[:, channel].flatten(), minlength=256) for channel in range(images.shape[1])]
    return moments(torch.stack(counts))


def moments(histogram: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation, as fractions of 255, from counts of pixel values (C, 256) int64.

    Exact except for the last rounding, in any order of counting. Rounded to 6 digits. A constant channel gets a
    standard deviation of 1, so that normalisation does not divide by zero.
    """
    mean, std = [], []
    for counts in histogram.tolist():
        total = sum(counts)
        first = sum(value * count for value, count in enumerate(counts))
        second = sum(value * value * count for value, count in enumerate(counts))
        mean.append(round(first / total / 255, 6))
        variance = (second * total - first * first) / total**2
        std.append(round(variance**0.5 / 255, 6) or 1.0)
    return tuple(mean), tuple(std)


def sealed(content: Any, labels: Tensor, in_channels: int, image_size: tuple[int, int]) -> str:
    """Add the labels and shape of a set to a hash over its pixels, and return its hex digits."""
    content.update(labels.cpu().numpy())
    content.update(json.dumps([len(labels), in_channels, *image_size]).encode())
    digits: str = content.hexdigest()
    return digits
