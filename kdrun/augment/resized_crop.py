"""A random part of the image, of random size and aspect ratio, enlarged to the image's size."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from kdrun.augment.base import Augmentation, Position
from kdrun.augment.rectangles import Rectangles, ranges, rectangles

__all__ = ["ResizedCrop"]


class ResizedCrop(Augmentation):
    """Crop a part whose share of the area is uniform in `scale` and whose width / height is log-uniform in `ratio`.

    Szegedy et al., "Going deeper with convolutions", CVPR 2015, as torchvision.transforms.v2.RandomResizedCrop draws
    it: the first of ten tries that fits in the image, else the largest part in the middle whose aspect ratio is
    allowed. The part is resized bilinearly to the image's own size, within 1/255 of torchvision; it is never
    larger than the image, so antialiasing changes nothing. Raise ValueError if a range is empty or outside its limits.
    """

    order, stream = 2, 1

    def __init__(self, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)) -> None:
        self.scale, self.ratio = ranges(scale, ratio)

    def draw(self, position: Position, size: tuple[int, int]) -> Rectangles:
        fitting = rectangles(position, self.stream, size, scale=self.scale, ratio=self.ratio, least=1, most=size)
        fitting = fitting.at_random(position, self.stream, size)
        height, width = self._largest(size)
        middle = ((size[0] - height) // 2, (size[1] - width) // 2, height, width)
        missed = fitting.height == 0
        return Rectangles(*(torch.where(missed, edge, own) for edge, own in zip(middle, fitting, strict=True)))

    def apply(self, images: Tensor, draws: Rectangles) -> Tensor:
        height, width = images.shape[2:]
        x = _places(draws.left, draws.width, width)[:, None, :].expand(-1, height, -1)
        y = _places(draws.top, draws.height, height)[:, :, None].expand(-1, -1, width)
        made = grid_sample(images.float(), torch.stack([x, y], 3), align_corners=False)
        return made.round_().to(torch.uint8, memory_format=torch.channels_last)

    def words(self) -> str:
        return f"cropped at random to {self.scale[0]:.0%} to {self.scale[1]:.0%} of the area and enlarged again"

    def _largest(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the largest part with an allowed aspect ratio."""
        height, width = size
        if width / height < self.ratio[0]:
            return round(width / self.ratio[0]), width
        if width / height > self.ratio[1]:
            return height, round(height * self.ratio[1])
        return size


def _places(start: Tensor, length: Tensor, side: int) -> Tensor:
    """Return where the `side` pixels of each result lie along one side of the image, from −1 to 1: (N, side) float32.

    Coordinates beyond the centres of the crop's outer pixels are clamped to these, so that no pixel outside the crop
    contributes.
    """
    step = length[:, None] / side
    place = (torch.arange(side, device=start.device) + 0.5) * step - 0.5
    place = place.clamp(min=0).minimum(length[:, None] - 1) + start[:, None]
    return (2 * place + 1) / side - 1
