"""Random crop, flip and normalisation of a whole batch as tensor operations, on any device.

Bit-equal to torchvision's RandomCrop(size, padding), RandomHorizontalFlip, ToTensor and Normalize at the
same offsets, and many times faster; nothing here waits for the device.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdrun.data.randomness import AUGMENTATION, below, bits, key


class Augmentation(NamedTuple):
    """The augmentation of training images."""

    crop_padding: int
    """Pixels of zeros around the image before a crop of its own size is taken from a random place."""
    flip: bool
    """Whether half of the images are mirrored left to right."""


class Draws(NamedTuple):
    """The random part of the augmentation of N images: where the crop starts, and whether it is mirrored."""

    top: Tensor
    """(N,) int64 in [0, 2·crop_padding]"""
    left: Tensor
    """(N,) int64 in [0, 2·crop_padding]"""
    mirrored: Tensor
    """(N,) bool"""

    def at(self, place: slice) -> "Draws":
        """Return the draws of some of the images."""
        return Draws(self.top[place], self.left[place], self.mirrored[place])


def draw(augmentation: Augmentation, seed: int, epoch: int, indices: Tensor) -> Draws:
    """Return the draws for the images at `indices` (N,): a function of (seed, epoch, index) alone."""
    random = bits(key(AUGMENTATION, seed, epoch), indices)
    places = 2 * augmentation.crop_padding + 1
    mirrored = below(2, random, 2) == 1 if augmentation.flip else torch.zeros_like(indices, dtype=torch.bool)
    return Draws(below(places, random, 0), below(places, random, 1), mirrored)


def augment(images: Tensor, augmentation: Augmentation, draws: Draws) -> Tensor:
    """Return cropped and mirrored images: uint8 (N, C, H, W) in, the same shape out, channels_last."""
    if augmentation.crop_padding:
        images = _crop(images, augmentation.crop_padding, draws.top, draws.left)
    if augmentation.flip:
        images = torch.where(draws.mirrored[:, None, None, None], images.flip(3), images)
    return images


def _crop(images: Tensor, padding: int, top: Tensor, left: Tensor) -> Tensor:
    """Take one crop of the image's own size from each padded image.

    In channels_last memory a row of a crop is W·C adjacent bytes, so all crops together are N·H rows of a matrix
    whose rows overlap: one gather instead of N slices.
    """
    n, c, h, w = images.shape
    padded = images.new_zeros(n, h + 2 * padding, w + 2 * padding, c)
    padded[:, padding:-padding, padding:-padding] = images.permute(0, 2, 3, 1)
    starts = padded.as_strided((padded.numel() // c - w + 1, w * c), (c, 1))
    row = torch.arange(h, device=images.device)
    image = torch.arange(n, device=images.device) * padded.shape[1]
    rows = ((image + top)[:, None] + row) * padded.shape[2] + left[:, None]
    return starts[rows.view(-1)].view(n, h, w, c).permute(0, 3, 1, 2)


class Normalisation:
    """(pixel / 255 − mean) / std per channel: uint8 (N, C, H, W) to float32, channels_last."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], width: int, device: torch.device) -> None:
        # Repeated over a row of pixels: an inner dimension of 3 would defeat vectorisation.
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).repeat(width)
        self.std = torch.tensor(std, dtype=torch.float32, device=device).repeat(width)

    def __call__(self, images: Tensor) -> Tensor:
        n, c, h, w = images.shape
        rows = images.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format)
        rows = rows.view(n * h, w * c).div_(255).sub_(self.mean).div_(self.std)
        return rows.view(n, h, w, c).permute(0, 3, 1, 2)
