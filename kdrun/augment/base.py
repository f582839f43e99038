"""What all augmentations share: random numbers by position, and the two kinds, of one image and of two.

Each augmentation is a class in a file beside this one; its constructor's arguments are the keys of
`conf/augment/NAME.yaml`. It draws all random numbers of an epoch in advance on the host, and applies the draws to each
batch as tensor operations on the batch's device, without waiting for the device.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from kdrun.randomness import below, bits, key

Draws = TypeVar("Draws", bound=tuple[Any, ...])


class Position(NamedTuple):
    """The position of M images' random numbers: each number is a function of the words and of the image's counter."""

    words: tuple[int, ...]
    """The words of the key: (purpose, seed, epoch), or (purpose, seed of the views)."""
    counters: Tensor
    """(M,) int64 on the CPU: the image's index, or its index and view."""

    def bits(self, *stream: int) -> Tensor:
        """Return 64 random bits for each image, (M,) int64; every stream of words has different bits."""
        return bits(key(*self.words, *stream), self.counters)

    def below(self, limit: int, *stream: int) -> Tensor:
        """Return whole numbers in [0, limit), (M,) int64, uniform to within 2⁻³²·limit; limit is below 2³¹."""
        return (self.bits(*stream) >> 31 & 0xFFFFFFFF) * limit >> 32

    def uniform(self, *stream: int) -> Tensor:
        """Return numbers in [0, 1), (M,) float64, with 53 random bits."""
        return (self.bits(*stream) >> 11 & (1 << 53) - 1).double() * 2.0**-53


class Augmentation:
    """A random change of single images; raise ValueError if a setting is out of range.

    `draw` returns what is random about the change, and `apply` changes the images accordingly.
    """

    order: ClassVar[int]
    """Augmentations are applied in rising order of this number, however they are listed."""
    stream: ClassVar[int]
    """The first word that its random numbers add to a position's words; it is unique to each augmentation."""
    host: ClassVar[frozenset[str]] = frozenset()
    """Fields of the draws that stay on the CPU, e.g. which operation an image gets, so that the images of a batch can
    be grouped without waiting for the device."""
    mean: tuple[float, ...] = ()
    """The mean of the data per channel, of pixels in [0, 1]; set when the augmentation of a training is built."""

    def fit(self, size: tuple[int, int]) -> None:
        """Raise ValueError if images of `size` (H, W) are too small for it."""

    def draw(self, position: Position, size: tuple[int, int]) -> tuple[Any, ...]:
        """Return what is random for M images of `size` (H, W): a NamedTuple of CPU tensors (M, …)."""
        raise NotImplementedError

    def apply(self, images: Tensor, draws: Any) -> Tensor:
        """Return the changed images, uint8 (N, C, H, W), channels_last, given images of that type and their draws."""
        raise NotImplementedError

    def forms(self, draws: Any) -> Tensor | None:
        """Return which of its `form_count` forms each image takes, (M,) int64; None if they cannot be counted."""
        return None

    @property
    def form_count(self) -> int | None:
        """The number of forms, different results, that an image can take; None if there are too many to count."""
        return None

    def of_forms(self, forms: Tensor) -> tuple[Any, ...]:
        """Return the draws that give images the forms (M,), if forms can be counted."""
        raise NotImplementedError

    def words(self) -> str:
        """Return what is done to an image, worded for a model card."""
        raise NotImplementedError


class Mix(NamedTuple):
    """How M images are mixed, each with a partner: a pixel is w·own + (1 − w)·partner, w = 0 inside the box."""

    weight: Tensor
    """(M,) float32: w outside the box"""
    top: Tensor
    """(M,) int64: the box is empty where top = bottom"""
    left: Tensor
    bottom: Tensor
    right: Tensor
    share: Tensor
    """(M,) float32: the share of the image's own label; the partner's label has the rest"""


class Mixing:
    """A random mixture of two images; raise ValueError if a setting is out of range."""

    stream: ClassVar[int]
    """As in `Augmentation`."""

    def draw(self, position: Position, size: tuple[int, int]) -> Mix:
        """Return how M images of `size` (H, W) are mixed."""
        raise NotImplementedError

    def words(self) -> str:
        """Return what is done, worded for a model card."""
        raise NotImplementedError


def at(draws: Draws, place: slice) -> Draws:
    """Return the draws of some of the images."""
    return type(draws)(*(values[place] for values in draws))


def joined(first: Draws, second: Draws) -> Draws:
    """Return the draws of some images, then those of others."""
    return type(first)(*(torch.cat(pair) for pair in zip(first, second, strict=True)))


def to_device(draws: Draws, device: torch.device, host: Iterable[str] = ()) -> Draws:
    """Return the draws on `device`, except for the fields of `host`."""
    fields = getattr(draws, "_fields", ())
    moved = (v if n in host else v.to(device, non_blocking=True) for n, v in zip(fields, draws, strict=True))
    return type(draws)(*moved)


def mixing_settings(alpha: float, probability: float) -> tuple[float, float]:
    """Return both settings. Raise ValueError if one is out of range."""
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha={alpha:g}: must be above 0; 1 draws λ uniformly, 0.2 mixes less")
    if not 0 < probability <= 1:
        raise ValueError(f"probability={probability:g}: must lie in (0, 1]; without mixing, leave it out of augment")
    return float(alpha), float(probability)


def beta(uniform: Tensor, alpha: float) -> Tensor:
    """Return the quantiles of Beta(alpha, alpha) at uniform numbers (M,), float64: λ by inversion."""
    if alpha == 1:
        return uniform
    from scipy.special import betaincinv  # imported late: most trainings mix uniformly or not at all

    return torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy()))


__all__ = [
    "Augmentation",
    "Mix",
    "Mixing",
    "Position",
    "at",
    "below",
    "beta",
    "joined",
    "mixing_settings",
    "to_device",
]
