"""All augmentations of a training together: they draw what is random about images, and apply it to batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kdrun.augment.base import Augmentation, Mix, Mixing, Position, at, joined, to_device
from kdrun.randomness import AUGMENTATION, VIEW, VIEWED, below, bits, key

MIXED = 100  # stream of the draws that are common to all kinds of mixing: partners, and the kind
VIEW_PLACE = 32  # bits of a counter for the image's index; the bits above hold the view


@dataclass(frozen=True)
class Look:
    """What is random about M images: the draws of each augmentation, and how they are mixed, if they are."""

    draws: tuple[Any, ...]
    partners: Tensor | None = None
    """(M,) int64: the positions of the other images in the set, on the CPU"""
    partner_draws: tuple[Any, ...] = ()
    mix: Mix | None = None

    def at(self, place: slice) -> Look:
        """Return what is random about some of the images."""
        if self.mix is None or self.partners is None:
            return Look(tuple(at(d, place) for d in self.draws))
        there = tuple(at(d, place) for d in self.partner_draws)
        return Look(tuple(at(d, place) for d in self.draws), self.partners[place], there, at(self.mix, place))


class Pipeline:
    """The augmentations of a training, in their fixed order, and the mixing of images after them.

    With `views` = K an image has K looks, which are functions of (views_seed, index, view); the view shown in an epoch
    is a function of (seed, epoch, index). Otherwise each epoch shows a new look, a function of (seed, epoch, index).
    With two kinds of mixing each image gets one of them, with equal chances. With `labelled_only` images without a
    label are not mixed, and are not partners of others. Another `purpose` makes the draws independent of these.
    """

    def __init__(
        self,
        stages: Sequence[Augmentation] = (),
        mixings: Sequence[Mixing] = (),
        *,
        views: int | None = None,
        views_seed: int = 0,
        labelled_only: bool = True,
        purpose: int = AUGMENTATION,
    ) -> None:
        self.stages = tuple(sorted(stages, key=lambda stage: stage.order))
        self.mixings = tuple(sorted(mixings, key=lambda mixing: mixing.stream))
        self.views, self.views_seed, self.labelled_only = views, views_seed, labelled_only
        self.purpose = purpose

    @property
    def form_count(self) -> int | None:
        """The number of forms that an image can take: 1 without augmentation; None if they cannot be counted."""
        if self.views is not None:
            return self.views
        if self.mixings or len(self.stages) > 1:
            return None
        return self.stages[0].form_count if self.stages else 1

    def forms(self, seed: int, epoch: int, indices: Tensor) -> Tensor:
        """Return the form of each image (M,) in an epoch, (M,) int64 on the CPU, if forms can be counted."""
        indices = indices.cpu()
        if self.views is not None:
            return self._view(seed, epoch, indices)
        if not self.stages:
            return torch.zeros_like(indices)
        forms = self.stages[0].forms(self.stages[0].draw(self._position(seed, epoch, indices), (0, 0)))
        assert forms is not None, "form_count is a number"
        return forms

    def look(self, seed: int, epoch: int, indices: Tensor, size: tuple[int, int], labelled: Tensor) -> Look:
        """Return what is random about images (M,) of `size` (H, W) in an epoch; `labelled` (N,) bool covers the set."""
        return self._look(self._position(seed, epoch, indices), indices, size, labelled)

    def look_of_forms(self, forms: Tensor, indices: Tensor, size: tuple[int, int], labelled: Tensor) -> Look:
        """Return what is random about images (M,) in the forms (M,), if forms can be counted."""
        if self.views is not None:
            return self._look(self._viewed(indices, forms), indices, size, labelled)
        return Look(tuple(stage.of_forms(forms) for stage in self.stages))

    def to(self, look: Look, device: torch.device) -> Look:
        """Return the look with all that the device needs moved to it, for a whole epoch at once."""

        def moved(draws: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(to_device(d, device, stage.host) for stage, d in zip(self.stages, draws, strict=True))

        mix = look.mix and to_device(look.mix, device)
        there = moved(look.partner_draws) if look.partner_draws else ()
        return replace(look, draws=moved(look.draws), partner_draws=there, mix=mix)

    def apply(self, images: Tensor, look: Look) -> Tensor:
        """Return the augmented images, given uint8 (N, C, H, W), followed by their N partners if they are mixed.

        The result is uint8 too, or float32 in the same range if images are mixed.
        """
        draws = look.draws
        if look.mix is not None and look.partner_draws:
            draws = tuple(joined(own, other) for own, other in zip(draws, look.partner_draws, strict=True))
        for stage, drawn in zip(self.stages, draws, strict=True):
            images = stage.apply(images, drawn)
        return images if look.mix is None else mixed(images, look.mix)

    def words(self) -> list[str]:
        """Return what is done to an image, worded for a model card."""
        words = [*(stage.words() for stage in self.stages), *(mixing.words() for mixing in self.mixings)]
        return [word for word in words if word]

    def _look(self, position: Position, indices: Tensor, size: tuple[int, int], labelled: Tensor) -> Look:
        draws = tuple(stage.draw(position, size) for stage in self.stages)
        if not self.mixings:
            return Look(draws)
        candidates = labelled.nonzero().flatten() if self.labelled_only else torch.arange(len(labelled))
        if not len(candidates):
            raise ValueError("no image has a label to mix; leave mixing out of augment")
        partners = candidates[position.below(len(candidates), MIXED, 0)]
        mix = self._mix(position, size)
        if self.labelled_only:
            mix = _only(mix, labelled[indices])
        others = Position(position.words, position.counters >> VIEW_PLACE << VIEW_PLACE | partners)
        return Look(draws, partners, tuple(stage.draw(others, size) for stage in self.stages), mix)

    def _mix(self, position: Position, size: tuple[int, int]) -> Mix:
        kinds = [mixing.draw(position, size) for mixing in self.mixings]
        if len(kinds) == 1:
            return kinds[0]
        chosen = position.below(len(kinds), MIXED, 1)
        rows = torch.arange(len(chosen))
        return Mix(*(torch.stack(values)[chosen, rows] for values in zip(*kinds, strict=True)))

    def _position(self, seed: int, epoch: int, indices: Tensor) -> Position:
        if self.views is None:
            return Position((self.purpose, seed, epoch), indices)
        return self._viewed(indices, self._view(seed, epoch, indices))

    def _view(self, seed: int, epoch: int, indices: Tensor) -> Tensor:
        assert self.views is not None
        return below(self.views, bits(key(VIEW, seed, epoch), indices), 0)

    def _viewed(self, indices: Tensor, views: Tensor) -> Position:
        return Position((VIEWED, self.views_seed), views << VIEW_PLACE | indices)


def mixed(images: Tensor, mix: Mix) -> Tensor:
    """Return N mixed images, float32 (N, C, H, W), channels_last, from N images and their N partners (2N, C, H, W)."""
    own, other = images.to(torch.float32, memory_format=torch.channels_last).chunk(2)
    weight = mix.weight[:, None, None, None]
    rows = torch.arange(own.shape[2], device=own.device)[None, :, None]
    columns = torch.arange(own.shape[3], device=own.device)[None, None, :]
    top, left, bottom, right = (edge[:, None, None] for edge in mix[1:5])
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    weight = torch.where(inside[:, None], 0.0, weight)
    return own * weight + other * (1 - weight)


def _only(mix: Mix, labelled: Tensor) -> Mix:
    """Return the same mixtures, but leave images without a label unmixed; `labelled` is (M,) bool."""
    top, left, bottom, right = (torch.where(labelled, edge, 0) for edge in mix[1:5])
    weight, share = (torch.where(labelled, values, 1.0) for values in (mix.weight, mix.share))
    return Mix(weight, top, left, bottom, right, share)
