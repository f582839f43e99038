"""Random erasing: a rectangle of some images is filled with one colour."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdrun.augment.base import Augmentation, Position
from kdrun.augment.rectangles import Rectangles, ranges, rectangles

__all__ = ["Erasing"]


class Erasing(Augmentation):
    """Fill a random rectangle of an image with `value`, with the given `probability`.

    Zhong et al., "Random erasing data augmentation", AAAI 2020, as torchvision.transforms.v2.RandomErasing draws it:
    the share of the area is uniform in `scale`, height / width log-uniform in `ratio`, and the first of ten tries
    with sides below the image's is taken; if there is none, nothing is erased. `value` is a pixel in [0, 1], 0 = black,
    null = the mean of the data for each channel, rounded to a multiple of 1/255, as pixels are whole numbers until they
    are normalised. Raise ValueError if a range is empty or outside its limits, or probability or value outside [0, 1].
    """

    order, stream = 5, 4

    def __init__(
        self,
        probability: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: float | None = None,
    ) -> None:
        if not 0 < probability <= 1:
            raise ValueError(f"probability={probability:g}: must lie in (0, 1]; without it, omit erasing from augment")
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"value={value:g}: must lie in [0, 1], 0 = black, or be null, the mean of the data")
        self.probability, self.value = float(probability), value
        self.scale, self.ratio = ranges(scale, ratio)

    def draw(self, position: Position, size: tuple[int, int]) -> Rectangles:
        ratio = (1 / self.ratio[1], 1 / self.ratio[0])  # width / height
        most = (size[0] - 1, size[1] - 1)
        drawn = rectangles(position, self.stream, size, scale=self.scale, ratio=ratio, least=0, most=most)
        drawn = drawn.at_random(position, self.stream, size)
        erased = position.uniform(self.stream) < self.probability
        return drawn._replace(height=torch.where(erased, drawn.height, 0))

    def apply(self, images: Tensor, draws: Rectangles) -> Tensor:
        channels, height, width = images.shape[1:]
        rows = _within(draws.top, draws.height, height)
        erased = rows[:, :, None] & _within(draws.left, draws.width, width)[:, None, :]
        fill = (self.value,) * channels if self.value is not None else self.mean
        made = images.clone()
        for channel, pixel in zip(made.unbind(1), fill, strict=True):
            channel.masked_fill_(erased, round(255 * pixel))
        return made

    def words(self) -> str:
        often = "" if self.probability == 1 else f" with probability {self.probability:g}"
        return f"erased in a random rectangle{often}"


def _within(start: Tensor, length: Tensor, side: int) -> Tensor:
    """Return which of the `side` pixels lie in each interval of `length` from `start`, (N, side) bool."""
    place = torch.arange(side, device=start.device)
    return (place >= start[:, None]) & (place < (start + length)[:, None])
