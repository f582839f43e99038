"""TrivialAugment: one operation of a random magnitude for each image."""

from torch import Tensor

from kdrun.augment.operations import RandomOperations, magnitudes

__all__ = ["TrivialAugment"]


class TrivialAugment(RandomOperations):
    """Apply one of 14 operations to each image, with a magnitude drawn uniformly from `bins` values of a wide range.

    Müller and Hutter, "TrivialAugment: Tuning-free yet state-of-the-art data augmentation", ICCV 2021; the operations
    and their ranges are those of torchvision.transforms.v2.TrivialAugmentWide, where pixels without a source are black.
    Translation reaches 32 pixels on images of any size: the whole width of CIFAR's. A grey image (one channel) is not
    changed by `color`. Raise ValueError if bins < 2.
    """

    order, stream = 4, 3
    layers = 1

    def __init__(self, bins: int = 31) -> None:
        if bins < 2:
            raise ValueError(f"bins={bins}: must be at least 2")
        self.bins = int(bins)

    def magnitudes(self, size: tuple[int, int]) -> Tensor:
        return magnitudes(self.bins, shear=0.99, translate=(32, 32), rotate=135, blend=0.99, posterize=6)

    def words(self) -> str:
        return "changed by one random operation (TrivialAugment)"
