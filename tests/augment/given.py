"""Positions and images that several tests of augmentations use."""

import torch
from torch import Tensor

from kdrun.augment.base import Position
from kdrun.randomness import AUGMENTATION


def positions(count: int, seed: int = 0, epoch: int = 0) -> Position:
    return Position((AUGMENTATION, seed, epoch), torch.arange(count))


def noise(count: int, channels: int, height: int, width: int) -> Tensor:
    """Random images, uint8, channels_last."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)
    return images.contiguous(memory_format=torch.channels_last)
