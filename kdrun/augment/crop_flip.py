"""A random crop of the image's own size from the padded image, and a random mirror image.

Bit-equal to torchvision's RandomCrop(size, padding) and RandomHorizontalFlip at the same draws, and many times faster.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kdrun.augment.base import Augmentation, Position, below

__all__ = ["CropFlip"]


class Draws(NamedTuple):
    """Where the crop of each image starts, and whether it is mirrored."""

    top: Tensor
    """(M,) int64 in [0, 2·padding]"""
    left: Tensor
    """(M,) int64 in [0, 2·padding]"""
    mirrored: Tensor
    """(M,) bool"""


class CropFlip(Augmentation):
    """Crop an image at random after padding it with `padding` black pixels, and mirror half of the images with `flip`.

    The field's standard for small images: a padding of 4 at 32×32 pixels (Krizhevsky 2012; He et al. 2016).
    Raise ValueError if the padding is negative.
    """

    order, stream = 1, 0

    def __init__(self, padding: int = 4, flip: bool = True) -> None:
        if padding < 0:
            raise ValueError(f"padding={padding}: must be a number of pixels, 0 or above")
        self.padding, self.flip = int(padding), bool(flip)

    def fit(self, size: tuple[int, int]) -> None:
        if self.padding > (side := min(size)):
            raise ValueError(
                f"padding={self.padding} (dataset.crop_padding): must lie in [0, {side}], the shorter side of an image"
            )

    @property
    def places(self) -> int:
        """The number of places of a crop along one side."""
        return 2 * self.padding + 1

    @property
    def form_count(self) -> int:
        return self.places**2 * (2 if self.flip else 1)

    def draw(self, position: Position, size: tuple[int, int]) -> Draws:
        random = position.bits()  # all three from one word
        mirrored = below(2, random, 2) == 1 if self.flip else torch.zeros_like(random, dtype=torch.bool)
        return Draws(below(self.places, random, 0), below(self.places, random, 1), mirrored)

    def forms(self, draws: Draws) -> Tensor:
        place = draws.top * self.places + draws.left
        return place * 2 + draws.mirrored if self.flip else place

    def of_forms(self, forms: Tensor) -> Draws:
        place = forms // 2 if self.flip else forms
        mirrored = forms % 2 == 1 if self.flip else torch.zeros_like(forms, dtype=torch.bool)
        return Draws(place // self.places, place % self.places, mirrored)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        if self.padding:
            images = cropped(images, self.padding, draws.top, draws.left)
        if self.flip:
            images = torch.where(draws.mirrored[:, None, None, None], images.flip(3), images)
        return images

    def words(self) -> str:
        changes = [f"shifted at random by up to {self.padding} pixels"] if self.padding else []
        changes += ["mirrored at random"] if self.flip else []
        return " and ".join(changes)


def cropped(images: Tensor, padding: int, top: Tensor, left: Tensor) -> Tensor:
    """Return one crop of the image's own size from each padded image, uint8 (N, C, H, W), starting at top, left (N,).

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
