"""The 14 operations of RandAugment and TrivialAugment on a batch in which each image has an operation of its own.

Images are sorted by their operation, which is known on the host, so a batch takes a fixed number of tensor operations,
whatever its size. Pixels equal those of torchvision.transforms.v2's functions on a CPU that rounds a + b·c once (FMA):
bit for bit at 32×32 and 28×28, and at other sizes except for ties between nearest pixels and torchvision's own rounding
at the end of an image. They depend on nothing but the image and its draws: sums are exact, and `_fused` rounds once on
every device.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from kdrun.augment.base import Augmentation, Position, below

__all__ = ["OPERATIONS", "Choices", "Draws", "RandomOperations", "magnitudes"]

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
"""In the order by which the images of a batch are sorted, so that operations of one kind are adjacent."""
SIGNED = 10  # operations before this index have magnitudes of either sign
_GREY = torch.tensor((0.2989, 0.587, 0.114), dtype=torch.float32).tolist()  # ITU-R 601-2, as torchvision rounds it


class Choices(NamedTuple):
    """Which operations M images get, in L layers."""

    operation: Tensor
    """(M, L) int64: place in `OPERATIONS`"""
    bin: Tensor
    """(M, L) int64: column of the table of magnitudes"""
    negative: Tensor
    """(M, L) int64, 0 or 1: whether the magnitude is negated, if it can have either sign"""


class Draws(NamedTuple):
    """What is random about M images that get L operations each, one after the other."""

    operation: Tensor
    """(M, L) int64 on the CPU: place in `OPERATIONS`"""
    settings: Tensor
    """(M, L, 6) float32: what the operation needs, see `settings`"""


class RandomOperations(Augmentation):
    """Apply operations to each image, which are drawn uniformly, as are their magnitudes and signs."""

    host = frozenset({"operation"})
    layers: int
    """The number of operations an image gets, one after the other."""

    def magnitudes(self, size: tuple[int, int]) -> Tensor:
        """Return the magnitudes that an operation may have on images of `size` (H, W): (14, bins) float64."""
        raise NotImplementedError

    def choices(self, position: Position, bins: int) -> Choices:
        """Return the operations of M images, each with one of `bins` magnitudes and a sign."""
        layers = [position.bits(self.stream, layer) for layer in range(self.layers)]
        limits = (len(OPERATIONS), bins, 2)
        return Choices(*(torch.stack([below(n, bits, i) for bits in layers], 1) for i, n in enumerate(limits)))

    def draw(self, position: Position, size: tuple[int, int]) -> Draws:
        table = self.magnitudes(size)
        operation, bin, negative = self.choices(position, table.shape[1])
        return Draws(operation, settings(table, size)[operation, bin, negative])

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        return applied(images, draws)


def magnitudes(
    bins: int, *, shear: float, translate: tuple[float, float], rotate: float, blend: float, posterize: int
) -> Tensor:
    """Return a table of magnitudes (14, bins) float64, evenly spaced from no change to each operation's largest.

    `shear` is a slope, `translate` is in pixels (along x, along y), `rotate` in degrees, `blend` is the share that is
    taken off or added, `posterize` the bits removed. Values are rounded to float32, as torchvision's are.
    """
    upper = (0.0, shear, shear, *translate, rotate, blend, blend, blend, blend)
    rising = [torch.linspace(0, limit, bins) for limit in upper]
    bits = (8 - torch.arange(bins) / ((bins - 1) / posterize)).round()
    nothing = torch.zeros(bins)
    return torch.stack([*rising, bits, torch.linspace(1, 0, bins), nothing, nothing]).double()


def settings(magnitudes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the numbers that an operation needs at each magnitude (14, bins) and sign: (14, bins, 2, 6) float32.

    Geometric operations: the matrix (2, 3) that maps coordinates in the result, in pixels from the centre, to those in
    the image, whose edges are at −1 and 1. Blends: the weight of the image and that of the other image. Posterize and
    solarize: the value from which bits are inverted, the bits to invert, and the bits to keep.
    """
    height, width = size
    m = torch.stack([magnitudes, magnitudes], 2)
    m[:SIGNED, :, 1].neg_()
    o, one = torch.zeros_like(m[0]), torch.ones_like(m[0])
    cos, sin = (m[5] * (math.pi / 180)).cos(), (m[5] * (math.pi / 180)).sin()
    weight = 1 + m[6:10]
    rows = (
        (o, o, o, o, o, o),
        (one, m[1], m[1] * (height / 2), o, one, o),
        (one, o, o, m[2], one, m[2] * (width / 2)),
        (one, o, -m[3].trunc(), o, one, o),
        (one, o, o, o, one, -m[4].trunc()),
        (cos, -sin, o, sin, cos, o),
        *((w, 1 - w, o, o, o, o) for w in weight[:3]),
        (one, 1 - weight[3], o, o, o, o),  # weighs the difference between the blurred image and the image
        (o, o, 256 - 2 ** (8 - m[10]), o, o, o),
        ((255 * m[11]).float().ceil(), 255 * one, 255 * one, o, o, o),  # in float32, as it is compared
        (o, o, o, o, o, o),
        (o, o, o, o, o, o),
    )
    made = torch.stack([torch.stack(row, -1) for row in rows]).float()
    made[1:6, ..., :3] /= width / 2
    made[1:6, ..., 3:] /= height / 2
    return made


def applied(images: Tensor, draws: Draws) -> Tensor:
    """Return uint8 images (N, C, H, W), C = 1 or 3, after the L operations of each, channels_last."""
    n, layers = draws.operation.shape
    order = draws.operation.sort(dim=0, stable=True).indices
    place = order.argsort(0)  # where each image lies within a layer
    moves = [order[:, 0], *(place[order[:, k], k - 1] for k in range(1, layers)), place[:, -1]]
    plan = torch.stack([*moves, *(order * layers + torch.arange(layers)).unbind(1)])
    plan = plan.to(images.device, non_blocking=True)
    settings = draws.settings.reshape(n * layers, -1)
    pixels = images.permute(0, 2, 3, 1)
    for k, operation in enumerate(draws.operation.unbind(1)):
        pixels = pixels.index_select(0, plan[k])
        sizes = operation.bincount(minlength=len(OPERATIONS)).tolist()
        _layer(pixels.permute(0, 3, 1, 2), settings.index_select(0, plan[layers + 1 + k]), sizes)
    return pixels.index_select(0, plan[layers]).permute(0, 3, 1, 2)


def _layer(images: Tensor, settings: Tensor, sizes: list[int]) -> None:
    """Apply one operation to each image in place; images are sorted by operation; `sizes` counts those of each."""
    start, first = sizes[0], 1  # identity
    for count, change in ((5, _moved), (4, _blended), (2, _levelled), (1, _stretched), (1, _equalized)):
        own = sizes[first : first + count]
        end = start + sum(own)
        if end > start:
            images[start:end] = change(images[start:end], settings[start:end], own)
        start, first = end, first + count


def _moved(images: Tensor, settings: Tensor, sizes: list[int]) -> Tensor:
    """Shear, translate or rotate: take the nearest pixel of the image for each place, and black outside it."""
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    # Elementwise: in a matrix product, TF32 would round coordinates to a tenth of a pixel.
    a, b, c = settings.view(-1, 2, 1, 1, 3).unbind(-1)
    grid = _fused(a * x, b, y).add_(c)
    return grid_sample(images.float(), grid.permute(0, 2, 3, 1), mode="nearest", align_corners=False).to(torch.uint8)


def _blended(images: Tensor, settings: Tensor, sizes: list[int]) -> Tensor:
    """Mix with black (brightness), with grey (color), its mean (contrast) or with the blurred image (sharpness)."""
    weight, other_weight = (settings[:, i, None, None, None] for i in range(2))
    pixels = images.float()
    other = torch.zeros_like(pixels)
    _, coloured, contrasted, sharpened = torch.split(pixels, sizes)
    _, grey, mean, blurred = torch.split(other, sizes)
    grey.copy_(_grey(coloured))
    mean.copy_(_grey(contrasted).sum((1, 2, 3), keepdim=True) / images[0, 0].numel())
    blurred[:, :, 1:-1, 1:-1] = _blur(sharpened) - sharpened[:, :, 1:-1, 1:-1]
    made = _fused(pixels * weight, other, other_weight).clamp_(0, 255).to(torch.uint8)
    if images.shape[1] == 1:  # a grey image has no colour to change
        torch.split(made, sizes)[1].copy_(torch.split(images, sizes)[1])
    return made


def _levelled(images: Tensor, settings: Tensor, sizes: list[int]) -> Tensor:
    """Keep the upper bits of each value (posterize), or invert the values from a threshold on (solarize)."""
    threshold, inverted, kept = settings[:, :3].to(torch.uint8).view(-1, 3, 1, 1, 1).unbind(1)
    return (images ^ (images >= threshold) * inverted) & kept


def _stretched(images: Tensor, settings: Tensor, sizes: list[int]) -> Tensor:
    """Stretch each channel so that its values reach from 0 to 255 (autocontrast)."""
    low, high = (edge.float() for edge in (images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)))
    flat = low == high
    scale = ((high - low) * (1 / 255)).masked_fill_(flat, 1)
    return (images.float() - low.masked_fill(flat, 0)).div_(scale).clamp_(0, 255).to(torch.uint8)


def _equalized(images: Tensor, settings: Tensor, sizes: list[int]) -> Tensor:
    """Spread the values of each channel so that their histogram is as flat as can be, as in PIL (equalize)."""
    values = images.flatten(2).contiguous().long()
    m, channels, count = values.shape
    row = torch.arange(m * channels, device=images.device).view(m, channels, 1) * 256
    histogram = values.new_zeros(m * channels * 256)
    histogram.scatter_add_(0, (values + row).view(-1), histogram.new_ones(1).expand(values.numel()))
    histogram = histogram.view(m, channels, 256)
    step = (count - histogram.gather(2, values.amax(2, keepdim=True))).div_(255, rounding_mode="floor")
    darker = histogram.cumsum(2) - histogram
    table = (darker + step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(max=255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    return table.gather(2, values).to(torch.uint8).view(images.shape)


def _grey(pixels: Tensor) -> Tensor:
    """Return the brightness of float32 images (N, C, H, W) in whole numbers, (N, 1, H, W)."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.unbind(1)
    return _fused(_fused(red * _GREY[0], green, _GREY[1]), blue, _GREY[2]).floor_().unsqueeze(1)


def _blur(pixels: Tensor) -> Tensor:
    """Return the mean of each pixel, counted five times, and its eight neighbours, rounded: (N, C, H − 2, W − 2).

    A sum of whole numbers is divided once, so rounding is exact; 13 is odd, so there are no ties.
    """
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    near = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    return near.add_(pixels[:, :, 1:-1, 1:-1], alpha=4).div_(13).round_()


def _fused(a: Tensor, b: Tensor, c: Tensor | float) -> Tensor:
    """Return a + b·c of float32 values, rounded once: in float64 the product is exact."""
    return (a.double() + b.double() * (c if isinstance(c, float) else c.double())).float()
