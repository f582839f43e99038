"""Random rectangles of a given range of areas and aspect ratios, as torchvision's crops and erased boxes are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdrun.augment.base import Position

TRIES = 10  # torchvision's


class Rectangles(NamedTuple):
    """A rectangle within each of M images."""

    top: Tensor
    """(M,) int64"""
    left: Tensor
    height: Tensor
    """(M,) int64: 0 if no try fitted"""
    width: Tensor

    def at_random(self, position: Position, stream: int, size: tuple[int, int]) -> Rectangles:
        """Return the rectangles at places drawn uniformly within images of `size` (H, W)."""
        top = (position.uniform(stream, TRIES) * (size[0] - self.height + 1)).long()
        left = (position.uniform(stream, TRIES + 1) * (size[1] - self.width + 1)).long()
        return self._replace(top=top, left=left)


def rectangles(
    position: Position,
    stream: int,
    size: tuple[int, int],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    least: int,
    most: tuple[int, int],
) -> Rectangles:
    """Return rectangles at the upper left corner of images of `size` (H, W), for M positions.

    Their share of the area is uniform in `scale`, their width / height log-uniform in `ratio`. Sides are rounded; the
    first of ten tries with sides of at least `least` and at most `most` (height, width) is taken.
    """
    sides = torch.zeros(2, len(position.counters), dtype=torch.int64)
    open_ones = torch.arange(len(position.counters))
    low, high = (math.log(edge) for edge in ratio)
    for tried in range(TRIES):
        there = Position(position.words, position.counters[open_ones])
        area = (scale[0] + (scale[1] - scale[0]) * there.uniform(stream, tried, 0)) * (size[0] * size[1])
        aspect = (low + (high - low) * there.uniform(stream, tried, 1)).exp()
        height, width = (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()
        fits = (height >= least) & (width >= least) & (height <= most[0]) & (width <= most[1])
        sides[:, open_ones[fits]] = torch.stack([height, width])[:, fits]
        open_ones = open_ones[~fits]
        if not len(open_ones):
            break
    nothing = torch.zeros_like(sides[0])
    return Rectangles(nothing, nothing, *sides)


def ranges(scale: Sequence[float], ratio: Sequence[float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return both ranges. Raise ValueError if one is not a pair of rising numbers within its limits."""
    for name, pair, most in (("scale", scale, 1.0), ("ratio", ratio, math.inf)):
        numbers = [float(edge) for edge in pair if isinstance(edge, (int, float))] if isinstance(pair, Sequence) else []
        if len(numbers) != 2 or not 0 < numbers[0] <= numbers[1] <= most or numbers[1] == math.inf:
            limits = "in (0, 1]" if most == 1 else "above 0"
            typed = list(pair) if isinstance(pair, Sequence) else pair
            raise ValueError(f"{name}={typed}: must be [least, most], two rising numbers {limits}")
    return (float(scale[0]), float(scale[1])), (float(ratio[0]), float(ratio[1]))
