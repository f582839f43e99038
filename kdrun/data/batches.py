"""Batches of a training and of an evaluation: what every learner of a cohort sees."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdrun.data.augmentation import Augmentation, Normalisation, augment, draw
from kdrun.data.randomness import ORDER, key, permutation
from kdrun.data.sets import FileSet, ImageSet


class Batch(NamedTuple):
    """Some images, ready for a network."""

    images: Tensor
    """(N, C, H, W) float32, normalised, channels_last."""
    labels: Tensor
    """(N,) int64, -1 = unlabelled."""
    indices: Tensor
    """(N,) int64, position in the set that the order was drawn from."""
    epoch: int


class Batches:
    """The batches of a training: shuffled, augmented, normalised, on `device`.

    The order depends on (seed, epoch) alone, and the augmentation of an image on (seed, epoch, index) alone:
    the same on any device, in any number of processes, and from whatever batch an epoch is entered. The last
    batch may be smaller; a last batch of one image, on which BatchNorm cannot train, joins the one before.
    Raises ValueError for fewer than two images and for a batch size below 1.
    """

    def __init__(
        self,
        images: ImageSet | FileSet,
        *,
        batch_size: int,
        seed: int,
        crop_padding: int,
        flip: bool,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
        workers: int = 0,
    ) -> None:
        if len(images) < 2:
            raise ValueError(
                f"{len(images)} image{'s' * (len(images) != 1)} to train on: a training needs at least two; "
                "raise transfer.fraction, lower dataset.val_fraction, or add images"
            )
        self.device = torch.device(device)
        self.images = images.to(self.device)
        self.seed, self.workers = seed, workers
        self.augmentation = Augmentation(crop_padding, flip)
        self.normalise = Normalisation(mean, std, images.image_size[1], self.device)
        self.slices = slices(len(images), batch_size, merge_single=True)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.slices)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from number `start` on, as if those before had been drawn."""
        order = permutation(key(ORDER, self.seed, epoch), len(self.images), self.device)
        draws = draw(self.augmentation, self.seed, epoch, order)
        places = self.slices[start:]
        plan = [order[place] for place in places]
        for place, indices, stored in zip(
            places, plan, self.images.stored(plan, self.device, self.workers), strict=True
        ):
            images = augment(stored.images, self.augmentation, draws.at(place))
            yield Batch(self.normalise(images), stored.labels, indices, epoch)


def in_order(
    images: ImageSet | FileSet,
    *,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
    workers: int = 0,
) -> Iterator[Batch]:
    """The batches of an evaluation: in the set's own order, not augmented; only the last may be smaller."""
    device = torch.device(device)
    normalise = Normalisation(mean, std, images.image_size[1], device)
    order = torch.arange(len(images), device=device)
    plan = [order[place] for place in slices(len(images), batch_size)]
    for indices, stored in zip(plan, images.stored(plan, device, workers), strict=True):
        yield Batch(normalise(stored.images), stored.labels, indices, 0)


def slices(length: int, batch_size: int, merge_single: bool = False) -> list[slice]:
    """Cut `length` positions into batches; with `merge_single` a last batch of one joins the one before."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    starts = list(range(0, length, batch_size))
    if merge_single and len(starts) > 1 and length - starts[-1] == 1 < batch_size:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], length], strict=True)]
