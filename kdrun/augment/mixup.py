"""Mixup: each image is mixed with another, and so are their labels."""

import torch

from kdrun.augment.base import Mix, Mixing, Position, beta, mixing_settings

__all__ = ["Mixup"]


class Mixup(Mixing):
    """Mix an image with its partner, λ·own + (1 − λ)·partner, λ ~ Beta(alpha, alpha), drawn for each image.

    Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018, Eq. 1; with alpha = 1, uniform, and
    probability 1 it is the augmentation of Beyer et al., "Knowledge distillation: A good teacher is patient and
    consistent", CVPR 2022. Raise ValueError if alpha is not above 0 or the probability is outside (0, 1].
    """

    stream = 101

    def __init__(self, alpha: float = 1.0, probability: float = 1.0) -> None:
        self.alpha, self.probability = mixing_settings(alpha, probability)

    def draw(self, position: Position, size: tuple[int, int]) -> Mix:
        weight = beta(position.uniform(self.stream, 0), self.alpha)
        weight = torch.where(position.uniform(self.stream, 1) < self.probability, weight, 1.0).float()
        nothing = torch.zeros_like(position.counters)
        return Mix(weight, nothing, nothing, nothing, nothing, weight)

    def words(self) -> str:
        return "mixed with another image (mixup)"
