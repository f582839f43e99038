"""Batches of a training and of an evaluation, the same for every learner of a cohort."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdrun.data.augmentation import Augmentation, Normalisation, augment, draw
from kdrun.data.decoders import HERE, Workers
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
    of: "Batch | None" = None
    """The batch of all processes, of which this is one's share: its labels and indices, and no images."""

    @property
    def whole(self) -> "Batch":
        """The batch of all processes, which losses are computed on; this one itself if there is one process."""
        return self if self.of is None else self.of


class Batches:
    """The batches of a training: shuffled, augmented, normalised, on `device`.

    The order depends on (seed, epoch) alone, and the augmentation of an image on (seed, epoch, index) alone:
    the same on any device, in any number of processes, and from any batch at which an epoch is resumed. The last
    batch may be smaller; a last batch of one image, on which BatchNorm cannot train, joins the one before.
    If several processes train together, each gets its own share of every batch (`share`).
    Raise ValueError if there are fewer than two images or the batch size is below 1.
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
        workers: Workers = HERE,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if len(images) < 2:
            raise ValueError(
                f"{len(images)} image{'s' * (len(images) != 1)} to train on: a training needs at least two; "
                "raise transfer.fraction, lower dataset.val_fraction, or add images"
            )
        self.device = torch.device(device)
        self.images = images.to(self.device)
        self.seed, self.workers, self.rank, self.ranks = seed, workers, rank, ranks
        self.augmentation = Augmentation(crop_padding, flip)
        self.normalise = Normalisation(mean, std, images.image_size[1], self.device)
        self.batch_size = batch_size
        self.slices = slices(len(images), batch_size, merge_single=True)

    @property
    def form_count(self) -> int:
        """The number of forms into which the augmentation can bring an image; 1 without augmentation."""
        places = 2 * self.augmentation.crop_padding + 1
        return places**2 * (2 if self.augmentation.flip else 1)

    def forms(self, batch: Batch) -> Tensor:
        """Return the form of each image of a batch, if there is no cropping: (N,) int64, 1 is mirrored."""
        return draw(self.augmentation, self.seed, batch.epoch, batch.indices).mirrored.long()

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return len(self.slices)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from number `start` on, as if those before had been drawn."""
        order = permutation(key(ORDER, self.seed, epoch), len(self.images), self.device)
        draws = draw(self.augmentation, self.seed, epoch, order)
        labels = None if self.ranks == 1 else self.images.labels.to(self.device)[order]
        places = self.slices[start:]
        shares = [share(place, self.rank, self.ranks) for place in places]
        plan = [order[part] for part in shares]
        stored_batches = self.images.stored(plan, self.device, self.workers)
        for place, part, indices, stored in zip(places, shares, plan, stored_batches, strict=True):
            images = self.normalise(augment(stored.images, self.augmentation, draws.at(part)))
            of = None if labels is None else Batch(images[:0], labels[place], order[place], epoch)
            yield Batch(images, stored.labels, indices, epoch, of)


def in_order(
    images: ImageSet | FileSet,
    *,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
    workers: Workers = HERE,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[Batch]:
    """Yield the batches of an evaluation: in the set's own order, not augmented; only the last may be smaller.

    Several processes get whole batches in turn: no image twice, and every batch as in one process.
    """
    device = torch.device(device)
    normalise = Normalisation(mean, std, images.image_size[1], device)
    order = torch.arange(len(images), device=device)
    plan = [order[place] for place in slices(len(images), batch_size)[rank::ranks]]
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


def share(place: slice, rank: int, ranks: int) -> slice:
    """Return the part of a batch at `place` that one of several processes runs; sizes differ by one image at most.

    BatchNorm needs two images, so a batch with less than two for each is run whole by all (see `counted`).
    """
    length = place.stop - place.start
    if length < 2 * ranks:
        return place
    return slice(place.start + length * rank // ranks, place.start + length * (rank + 1) // ranks)


def counted(length: int, ranks: int) -> list[int]:
    """Return the number of images of a batch that each process contributes; only the first does if all run it whole."""
    if length < 2 * ranks:
        return [length] + [0] * (ranks - 1)
    return [length * (rank + 1) // ranks - length * rank // ranks for rank in range(ranks)]
