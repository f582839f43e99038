"""Generated images that can be learned, for benchmarks, tests and first trials."""

import torch
from torch import Tensor

from kdrun.data.sets import Dataset, ImageSet, assemble, statistics
from kdrun.randomness import GENERATED, bits, key

__all__ = ["synthetic"]

SHIFT = 0.15  # largest shift of a pattern, as a share of the image's side
NOISE = 0.25  # amplitude of the noise; that of the pattern is 1


def synthetic(
    *,
    name: str,
    num_classes: int,
    size: int,
    channels: int,
    train_images: int,
    test_images: int,
    data_seed: int,
    val_fraction: float,
    split_seed: int,
) -> Dataset:
    """Return images that show a smooth pattern of waves for each class, shifted at random, with noise.

    Labels are 0, 1, … in turn, so the sizes of classes differ by one image at most. An image is a function of
    `data_seed`, `size`, `channels`, `num_classes` and its number; train and test never share a draw.
    Raise ValueError if there are fewer images than classes or a size is out of range.
    """
    for what, value, low, high in (
        ("num_classes", num_classes, 2, 10_000),
        ("size", size, 4, 1024),
        ("channels", channels, 1, 3),
        ("train_images", train_images, 2 * num_classes, 10**8),
        ("test_images", test_images, num_classes, 10**8),
    ):
        if not low <= value <= high or (what == "channels" and value == 2):
            allowed = "choose 1 or 3" if what == "channels" else f"must lie in [{low}, {high}]"
            raise ValueError(f"dataset.{what}={value}: {allowed}")
    waves = _uniform(key(GENERATED, data_seed, 0), (num_classes, channels, 3, 3))
    parts = {
        "train": _drawn(waves, train_images, size, key(GENERATED, data_seed, 1)),
        "test": _drawn(waves, test_images, size, key(GENERATED, data_seed, 2)),
    }
    mean, std = statistics(parts["train"].images)
    return assemble(
        name,
        [f"class {label}" for label in range(num_classes)],
        parts,
        mean=mean,
        std=std,
        val_fraction=val_fraction,
        split_seed=split_seed,
    )


def _drawn(waves: Tensor, count: int, size: int, key: int) -> ImageSet:
    """Return `count` images of the patterns that `waves` (classes, C, 3 waves, 3 numbers) describes."""
    labels = torch.arange(count) % len(waves)
    images = torch.empty(count, waves.shape[1], size, size, dtype=torch.uint8)
    grid = torch.arange(size) / size
    for start in range(0, count, 512):
        chunk = labels[start : start + 512]
        shift = SHIFT * _uniform(key, (len(chunk), 2), start * 2)
        across, down, phase = waves[chunk].unbind(-1)
        x = (4 * across - 2)[..., None, None] * (grid + shift[:, 1, None])[:, None, None, None, :]
        y = (4 * down - 2)[..., None, None] * (grid + shift[:, 0, None])[:, None, None, :, None]
        pattern = torch.sin(2 * torch.pi * (x + y + phase[..., None, None])).mean(2)
        noise = _uniform(key ^ 1, tuple(pattern.shape), start * pattern[0].numel()) - 0.5
        images[start : start + 512] = (127.5 + 127.5 * (pattern + 2 * NOISE * noise)).round().clamp(0, 255).byte()
    return ImageSet(images, labels)


def _uniform(key: int, shape: tuple[int, ...], start: int = 0) -> Tensor:
    """Return numbers in [0, 1), from position `start` of the stream on."""
    count = torch.Size(shape).numel()
    return ((bits(key, torch.arange(start, start + count)) >> 40) & (2**24 - 1)).view(shape) / 2**24
