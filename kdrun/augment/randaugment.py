"""RandAugment: N operations of one magnitude, drawn for each image."""

from torch import Tensor

from kdrun.augment.operations import RandomOperations, magnitudes

__all__ = ["RandAugment"]


class RandAugment(RandomOperations):
    """Apply N of 14 operations to each image, one after the other, all with magnitude M.

    Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", NeurIPS 2020; the
    operations, their ranges and the defaults are those of torchvision.transforms.v2.RandAugment, where pixels without
    a source are black. The same operation may be drawn twice. M counts from 0, no change, to bins − 1, the largest;
    this holds for posterize and solarize too, while autocontrast, equalize and identity have no magnitude. A grey image
    (one channel) is not changed by `color`. Raise ValueError if N < 1, bins < 2 or M is outside [0, bins − 1].
    """

    order, stream = 3, 2

    def __init__(self, N: int = 2, M: int = 9, bins: int = 31) -> None:
        if N < 1:
            raise ValueError(f"N={N}: must be at least 1; without operations, leave randaugment out of augment")
        if bins < 2:
            raise ValueError(f"bins={bins}: must be at least 2")
        if not 0 <= M < bins:
            raise ValueError(f"M={M}: must lie in [0, {bins - 1}], as bins={bins}")
        self.layers, self.magnitude, self.bins = int(N), int(M), int(bins)

    def magnitudes(self, size: tuple[int, int]) -> Tensor:
        height, width = size
        far = 150 / 331  # AutoAugment's 150 pixels of 331
        table = magnitudes(
            self.bins, shear=0.3, translate=(far * width, far * height), rotate=30, blend=0.9, posterize=4
        )
        return table[:, self.magnitude, None]

    def words(self) -> str:
        times = "one random operation" if self.layers == 1 else f"{self.layers} random operations"
        return f"changed by {times} of magnitude {self.magnitude} of {self.bins - 1} (RandAugment)"
