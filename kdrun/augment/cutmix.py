"""CutMix: a box of each image is replaced with that of another, and the labels are mixed by its area."""

import torch

from kdrun.augment.base import Mix, Mixing, Position, beta, mixing_settings

__all__ = ["Cutmix"]


class Cutmix(Mixing):
    """Replace a box of an image, of area 1 − λ at a random centre, with its partner's; λ ~ Beta(alpha, alpha).

    Yun et al., "CutMix: Regularization strategy to train strong classifiers with localizable features", ICCV 2019,
    Eq. 1 and 2. A box that reaches over the border is cut off there, and the labels are mixed by the area that is left,
    as in the authors' code. Raise ValueError if alpha is not above 0 or the probability is outside (0, 1].
    """

    stream = 102

    def __init__(self, alpha: float = 1.0, probability: float = 1.0) -> None:
        self.alpha, self.probability = mixing_settings(alpha, probability)

    def draw(self, position: Position, size: tuple[int, int]) -> Mix:
        height, width = size
        own = beta(position.uniform(self.stream, 0), self.alpha)
        own = torch.where(position.uniform(self.stream, 1) < self.probability, own, 1.0)
        y, x = position.below(height, self.stream, 2), position.below(width, self.stream, 3)
        half = 0.5 * (1 - own).sqrt()
        half_height, half_width = (half * height).long(), (half * width).long()
        top, bottom = (y - half_height).clamp(min=0), (y + half_height).clamp(max=height)
        left, right = (x - half_width).clamp(min=0), (x + half_width).clamp(max=width)
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return Mix(torch.ones_like(share, dtype=torch.float32), top, left, bottom, right, share.float())

    def words(self) -> str:
        return "with a box of another image (CutMix)"
