"""Corruptions of images at five severities: uint8 (N, C, H, W) in, the same out.

After Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations"
(ICLR 2019): images of up to 64 pixels get the strengths of their CIFAR-10-C, larger ones those of ImageNet-C.
Noise, blur, contrast, brightness, pixelation and JPEG are theirs; occlusion, shift and rotation are ours. Unlike in
their code, values are rounded, not truncated, and random numbers depend only on an image's index in the test set. A
higher severity always changes an image more: if two strengths round to the same number of whole pixels, as on images
of 8×8, the higher one changes a pixel more.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from kdrun.randomness import CORRUPTION, bits, key

SEVERITIES = range(1, 6)
LARGE = 65  # pixels of the shorter side; from here on an image counts as large
TINY = 20  # pixels of a side; below it, several strengths of pixelation round to the same number of pixels
CHUNK = 2**22  # pixel values corrupted at once: the random numbers of each take several times eight bytes


class Draws:
    """The random numbers of N images, determined by the seed, the purpose, the name and each image's index alone.

    They do not depend on the severity: a higher severity is the same corruption, only stronger, so that curves over
    the severity have no noise from new draws.
    """

    def __init__(self, purpose: int, seed: int, name: str, indices: Tensor) -> None:
        self._key, self._indices = key(purpose, seed, *name.encode()), indices

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers in (0, 1) for each image: (N, *shape) float32."""
        count = math.prod(shape)
        place = self._indices[:, None] * count + torch.arange(count, device=self._indices.device)
        whole = (bits(self._key, place) >> 41) & (2**23 - 1)  # 23 bits, 24 with the added half: exact in float32
        drawn: Tensor = ((whole.float() + 0.5) / 2**23).view(-1, *shape)
        return drawn


def gaussian_noise(pixels: Tensor, std: float, draws: Draws) -> Tensor:
    """Add normal noise of this standard deviation."""
    normal: Tensor = torch.special.ndtri(draws.uniform(*pixels.shape[1:]))
    return pixels + std * normal


def shot_noise(pixels: Tensor, photons: float, draws: Draws) -> Tensor:
    """Replace pixels by Poisson-distributed counts of photons; a white pixel sends `photons` of them on average.

    A count is the quantile of a uniform number. The distribution functions of all 256 pixel values are concatenated
    into one rising sequence, so that one search yields all counts.
    """
    most = int(photons + 10 * photons**0.5 + 20)
    rate = torch.arange(256, device=pixels.device).double()[:, None] * photons / 255
    count = torch.arange(most, device=pixels.device).double()
    chances = torch.exp(torch.special.xlogy(count, rate) - rate - torch.lgamma(count + 1))
    reached = chances.cumsum(1).clamp(max=1)
    reached[:, -1] = 1
    value = (pixels * 255).round().long()
    rising = (reached + torch.arange(256, device=pixels.device)[:, None]).flatten()
    place = torch.searchsorted(rising, (value + draws.uniform(*pixels.shape[1:]).double()).contiguous())
    return ((place - value * most) / photons).to(pixels.dtype)


def salt_and_pepper(pixels: Tensor, amount: float, draws: Draws) -> Tensor:
    """Set this share of all values to 0 or to 1."""
    drawn = draws.uniform(*pixels.shape[1:])
    return torch.where(drawn < amount / 2, 0.0, torch.where(drawn > 1 - amount / 2, 1.0, pixels))


def blur(pixels: Tensor, std: float, draws: Draws) -> Tensor:
    """Blur with a Gaussian of this many pixels, truncated at four standard deviations; edge pixels are repeated."""
    return _separable(pixels, *(_gaussian(side, std, pixels.device) for side in pixels.shape[2:]))


def contrast(pixels: Tensor, kept: float, draws: Draws) -> Tensor:
    """Scale the distance to the channel's mean to this share."""
    mean = pixels.mean((2, 3), keepdim=True)
    return (pixels - mean) * kept + mean


def brightness(pixels: Tensor, added: float, draws: Draws) -> Tensor:
    """Raise a pixel's value (its largest channel) without changing its hue and saturation."""
    value = pixels.amax(1, keepdim=True)
    raised = (value + added).clamp(max=1)
    return torch.where(value > 0, pixels * raised / value.clamp(min=1e-6), raised)


class Step(NamedTuple):
    """A strength: a share of a side, and a number of whole pixels that keeps severities apart on small images."""

    share: float
    pixels: int


def pixelation(pixels: Tensor, kept: Step, draws: Draws) -> Tensor:
    """Scale each side down to this share, and by `kept.pixels` at least, by averaging, and up again by repetition."""
    fewer = (max(1, min(int(side * kept.share), side - kept.pixels)) for side in pixels.shape[2:])
    return _separable(pixels, *(_boxes(s, n, pixels.device) for s, n in zip(pixels.shape[2:], fewer, strict=True)))


def jpeg(pixels: Tensor, quality: float, draws: Draws) -> Tensor:
    """Compress as JPEG of this quality, with Pillow."""
    stored = (pixels * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    if stored.shape[3] == 1:
        stored = stored[..., 0]
    read = []
    for image in stored:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(quality))
        read.append(np.asarray(Image.open(file)))
    decoded = torch.from_numpy(np.stack(read)).to(pixels.device, pixels.dtype) / 255
    return decoded.view(len(decoded), *pixels.shape[2:], -1).permute(0, 3, 1, 2)


def occlusion(pixels: Tensor, covered_share: Step, draws: Draws) -> Tensor:
    """Cover a grey square with this share of the image's shorter side, at a random place in each image.

    Its side is at least `covered_share.pixels` pixels shorter than that of the largest square.
    """
    height, width = pixels.shape[2:]
    largest = round(LARGEST * min(height, width))
    side = max(1, min(round(covered_share.share * min(height, width)), largest - covered_share.pixels))
    covered = []
    for drawn, length in zip(draws.uniform(2).unbind(1), (height, width), strict=True):
        start = (drawn * (length - side + 1)).floor()[:, None]
        at = torch.arange(length, device=pixels.device)
        covered.append((at >= start) & (at < start + side))
    return torch.where((covered[0][:, :, None] & covered[1][:, None, :])[:, None], 0.5, pixels)


def shift(pixels: Tensor, share: float, draws: Draws) -> Tensor:
    """Move each image by this share of its shorter side, in a random direction."""
    angle = 2 * math.pi * draws.uniform(1)[:, 0]
    distance = share * min(pixels.shape[2:])
    return moved(pixels, distance * torch.sin(angle), distance * torch.cos(angle), torch.zeros_like(angle))


def rotation(pixels: Tensor, degrees: float, draws: Draws) -> Tensor:
    """Rotate each image about its centre by this many degrees, at random to one side or the other."""
    angle = torch.where(draws.uniform(1)[:, 0] < 0.5, -degrees, degrees)
    return moved(pixels, torch.zeros_like(angle), torch.zeros_like(angle), angle)


class Corruption(NamedTuple):
    """A corruption, and its strength at severities 1 to 5 for small and for large images."""

    apply: Callable[[Tensor, Any, Draws], Tensor]  # float32 pixels (N, C, H, W) in [0, 1] and a strength; then clipped
    small: tuple[Any, ...]
    large: tuple[Any, ...]


LARGEST = 0.6  # the largest square of occlusion, as a share of the image's shorter side
KEPT_SMALL = tuple(map(Step, (0.95, 0.9, 0.85, 0.75, 0.65), SEVERITIES))
KEPT_LARGE = tuple(map(Step, (0.6, 0.5, 0.4, 0.3, 0.25), SEVERITIES))
COVERED = tuple(map(Step, (0.2, 0.3, 0.4, 0.5, LARGEST), reversed(range(5))))


CORRUPTIONS = {  # CIFAR-10-C's and ImageNet-C's strengths, and ours in the last three
    "gaussian_noise": Corruption(gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Corruption(shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "salt_and_pepper": Corruption(salt_and_pepper, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "blur": Corruption(blur, (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)),
    "contrast": Corruption(contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": Corruption(brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "pixelation": Corruption(pixelation, KEPT_SMALL, KEPT_LARGE),
    "jpeg": Corruption(jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    "occlusion": Corruption(occlusion, COVERED, COVERED),
    "shift": Corruption(shift, (0.04, 0.08, 0.12, 0.16, 0.2), (0.04, 0.08, 0.12, 0.16, 0.2)),
    "rotation": Corruption(rotation, (6, 12, 18, 24, 30), (6, 12, 18, 24, 30)),
}


def corrupt(images: Tensor, name: str, severity: int, *, seed: int, indices: Tensor) -> Tensor:
    """Corrupt images: uint8 (N, C, H, W) in and out, on their device.

    An image's random numbers depend only on the seed, the corruption and its index, (N,) int64, not on its batch.
    Raise ValueError if there is no such corruption or severity.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"{name}: there is no such corruption; there are {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity} of {name}: must lie in [1, 5]")
    corruption = CORRUPTIONS[name]
    strength = (corruption.large if min(images.shape[2:]) >= LARGE else corruption.small)[severity - 1]
    rows = max(1, CHUNK // math.prod(images.shape[1:]))
    made = []
    for part, places in zip(torch.split(images, rows), torch.split(indices, rows), strict=True):
        draws = Draws(CORRUPTION, seed, name, places)
        made.append((corruption.apply(part.float() / 255, strength, draws).clamp(0, 1) * 255).round().byte())
    return torch.cat(made)


def moved(pixels: Tensor, down: Tensor, right: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each image clockwise about its centre, then move it `down` and `right` by this many pixels: (N,) each.

    Interpolation is bilinear; beyond the edge, edge pixels are repeated.
    """
    height, width = pixels.shape[2:]
    turn = torch.deg2rad(degrees)[:, None, None]
    y = torch.arange(height, device=pixels.device)[:, None] - (height - 1) / 2 - down[:, None, None]
    x = torch.arange(width, device=pixels.device)[None, :] - (width - 1) / 2 - right[:, None, None]
    # the source of each pixel, in pixels from the centre; grid_sample takes it in units of half the image
    across, along = torch.cos(turn) * x + torch.sin(turn) * y, torch.cos(turn) * y - torch.sin(turn) * x
    places = torch.stack([across * 2 / width, along * 2 / height], dim=-1).to(pixels.dtype)
    return functional.grid_sample(pixels, places, mode="bilinear", padding_mode="border", align_corners=False)


def _separable(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return R·x·Cᵀ for every channel, R (H, H) and C (W, W); in float64, which no device computes in TF32."""
    across = pixels.double() @ columns.T
    return (across.transpose(2, 3) @ rows.T).transpose(2, 3).to(pixels.dtype)


def _gaussian(side: int, std: float, device: torch.device) -> Tensor:
    """Return the matrix (side, side) that blurs a line of pixels."""
    radius = int(4 * std + 0.5)
    reach = torch.arange(-radius, radius + 1, device=device)
    weights = torch.exp(-0.5 * (reach.double() / std) ** 2)
    places = (torch.arange(side, device=device)[:, None] + reach).clamp(0, side - 1)
    matrix = torch.zeros(side, side, dtype=torch.float64, device=device)
    return matrix.scatter_add(1, places, (weights / weights.sum()).expand(side, -1))


def _boxes(side: int, fewer: int, device: torch.device) -> Tensor:
    """Return the matrix (side, side) that scales a line of pixels down to `fewer` and up again.

    Every pixel becomes the mean of its box, as in Pillow's BOX. But if a pixel's centre lies on the border of two
    boxes, Pillow averages the pixel into one box and shows the other's mean in its place, so that fewer boxes could
    change an image less; here both use the same box. For the same reason, in tiny images, whose boxes have few pixels,
    pixels are weighted by the area that pixel and box share.
    """
    pixel = torch.arange(side, device=device).double()
    start = torch.arange(fewer, device=device).double()[:, None] * side / fewer
    shared = (torch.minimum(start + side / fewer, pixel + 1) - torch.maximum(start, pixel)).clamp(min=0)
    if side >= TINY:
        box = (2 * torch.arange(side, device=device) + 1) * fewer // (2 * side)
        shared = (torch.arange(fewer, device=device)[:, None] == box).double()
    up = (shared / shared.sum(0)).T
    return up @ (shared / shared.sum(1, keepdim=True))
