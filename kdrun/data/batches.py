"""Batches of a training and of an evaluation, the same for every learner of a cohort."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdrun.augment import Pipeline
from kdrun.augment.pipeline import Look
from kdrun.data.decoders import HERE, Workers
from kdrun.data.normalisation import Normalisation
from kdrun.data.sets import FileSet, ImageSet
from kdrun.randomness import ORDER, key, permutation


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
    """If this is one process's share, the batch of all processes: its labels and indices, without images."""
    partner_labels: Tensor | None = None
    """(N,) int64: the labels of the images that these are mixed with; None without mixing."""
    share: Tensor | None = None
    """(N,) float32: the share of `labels` in a mixed image; `partner_labels` have the rest."""
    strong: "Batch | None" = None
    """A second, more strongly augmented view of the same images; None if no loss compares two."""

    @property
    def whole(self) -> "Batch":
        """The batch of all processes, on which losses are computed; this batch itself if there is one process."""
        return self if self.of is None else self.of

    @property
    def dominant(self) -> Tensor:
        """The label that has the larger share of each image, (N,) int64: its own without mixing."""
        if self.partner_labels is None or self.share is None:
            return self.labels
        return torch.where(self.share >= 0.5, self.labels, self.partner_labels)


class Batches:
    """The batches of a training: shuffled, augmented, normalised, on `device`.

    The order depends on (seed, epoch) alone, and the augmentation of an image on (seed, epoch, index) alone:
    the same on any device, in any number of processes, and from any batch at which an epoch is resumed. The last
    batch may be smaller; a last batch of one image, on which BatchNorm cannot train, joins the one before.
    If several processes train together, each gets its own share of every batch (`share`).
    With `strong`, an augmentation with draws of its own, each batch has a second view of its images.
    Raise ValueError if there are fewer than two images or the batch size is below 1.
    """

    def __init__(
        self,
        images: ImageSet | FileSet,
        *,
        batch_size: int,
        seed: int,
        augmentation: Pipeline,
        strong: Pipeline | None = None,
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
        self.labelled = images.labels.cpu() >= 0
        self.seed, self.workers, self.rank, self.ranks = seed, workers, rank, ranks
        self.augmentation, self.strong = augmentation, strong
        self.normalise = Normalisation(mean, std, images.image_size[1], self.device)
        self.batch_size = batch_size
        self.slices = slices(len(images), batch_size, merge_single=True)

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return len(self.slices)

    def order(self, epoch: int) -> Tensor:
        """Return the order of the images in an epoch, (N,) int64 on the CPU."""
        return permutation(key(ORDER, self.seed, epoch), len(self.images))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from number `start` on, as if those before had been drawn."""
        order = self.order(epoch)
        size = self.images.image_size
        look = self.augmentation.look(self.seed, epoch, order, size, self.labelled)
        plan = [share(place, self.rank, self.ranks) for place in self.slices[start:]]
        stored_batches = self._stored([order[part] for part in plan], [look.at(part) for part in plan])
        labels = self.images.labels.to(self.device)
        indices, look = order.to(self.device), self.augmentation.to(look, self.device)
        partner_labels = None if look.partners is None else labels[look.partners.to(self.device)]
        again = None
        if self.strong is not None:
            again = self.strong.to(self.strong.look(self.seed, epoch, order, size, self.labelled), self.device)

        def described(place: slice, images: Tensor, of: Batch | None) -> Batch:
            there, mix = indices[place], look.mix
            if partner_labels is None or mix is None:
                return Batch(images, labels[there], there, epoch, of)
            return Batch(images, labels[there], there, epoch, of, partner_labels[place], mix.share[place])

        for place, part, stored in zip(self.slices[start:], plan, stored_batches, strict=True):
            images = self.normalise(self.augmentation.apply(stored, look.at(part)))
            of = None if self.ranks == 1 else described(place, images[:0], None)
            batch = described(part, images, of)
            if self.strong is not None and again is not None:
                second = self.normalise(self.strong.apply(stored, again.at(part)))
                batch = batch._replace(strong=batch._replace(images=second))
            yield batch

    def shown(self, epoch: int) -> Tensor:
        """Return the form in which each image is shown in an epoch, in the epoch's order, if the forms are counted."""
        return self.augmentation.forms(self.seed, epoch, self.order(epoch))

    def rendered(self, forms: Tensor, indices: Tensor) -> Iterator[Tensor]:
        """Yield images in the given forms (M,), as batches show them: (n, C, H, W) float32, batch_size at a time."""
        look = self.augmentation.look_of_forms(forms, indices, self.images.image_size, self.labelled)
        parts = slices(len(indices), self.batch_size)
        stored_batches = self._stored([indices[part] for part in parts], [look.at(part) for part in parts])
        look = self.augmentation.to(look, self.device)
        for part, stored in zip(parts, stored_batches, strict=True):
            yield self.normalise(self.augmentation.apply(stored, look.at(part)))

    def _stored(self, plan: Sequence[Tensor], looks: Sequence[Look]) -> Iterator[Tensor]:
        """Yield stored images (n, C, H, W), or, if they are mixed, these and their partners (2n, C, H, W)."""
        rows = [
            indices if look.partners is None else torch.cat([indices, look.partners])
            for indices, look in zip(plan, looks, strict=True)
        ]
        if isinstance(self.images, ImageSet) and rows:  # moved once, so that no step waits for them
            rows = list(torch.split(torch.cat(rows).to(self.device), [len(part) for part in rows]))
        return (stored.images for stored in self.images.stored(rows, self.device, self.workers))


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

    Several processes take whole batches in turn, so no image occurs twice, and every batch is that of one process.
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

    BatchNorm needs two images, so all processes run the whole batch if it has less than two for each (see `counted`).
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
