"""Curriculum temperature (Li et al., "Curriculum Temperature for Knowledge Distillation", AAAI 2023)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdrun.data.batches import Batch
from kdrun.losses.base import Term, at_least_float32, kl_divergence, log_softened, not_negative, z_scores
from kdrun.models.base import Outputs

__all__ = ["CTKD"]


class CTKD(Term):
    """T²·KL(p_t ‖ p_s) at a temperature that learns to make the student's task harder.

    All samples share one temperature, T_start + T_range·σ(θ). θ is trained with the student, by the same optimiser,
    but to increase the loss: its gradient is reversed and multiplied by λ, which grows from 0 to `lambda_max` over
    `ramp_epochs` (0: at once). The factor T² is part of the loss that θ maximises; without it the loss would only
    fall as T grows. With `standardize` the logits become z-scores first (Sun et al. 2024). Several teachers are
    averaged: the weighted mean of their softened probabilities. Raise ValueError if a number is out of range.
    """

    logits_only = True
    takes_top_k = True
    hears_several = True

    def __init__(
        self,
        T_start: float = 1.0,
        T_range: float = 20.0,
        lambda_max: float = 1.0,
        ramp_epochs: int = 10,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        if not (math.isfinite(T_start) and T_start > 0):
            raise ValueError(f"T_start must be a finite number above 0, got {T_start}; 1 is published")
        not_negative(T_range=T_range, lambda_max=lambda_max, ramp_epochs=ramp_epochs)
        self.T_start, self.T_range = float(T_start), float(T_range)
        self.lambda_max, self.ramp_epochs = float(lambda_max), ramp_epochs
        self.standardize = standardize
        self.theta = nn.Parameter(torch.ones(()))  # the published start: T = 1 + 20·σ(1) = 15.6

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.together(student, [teacher], [1.0], batch)

    def together(self, student: Outputs, teachers: Sequence[Outputs], weights: Sequence[float], batch: Batch) -> Tensor:
        theta = reversed_gradient(self.theta, self.lambda_max * ramp(batch.epoch, self.ramp_epochs))
        T = temperature(theta, self.T_start, self.T_range)
        log_p_t = torch.stack(
            [
                self.soften(teacher.logits.detach(), T) + math.log(weight)
                for teacher, weight in zip(teachers, weights, strict=True)
            ]
        ).logsumexp(0)
        return T.square() * kl_divergence(log_p_t, self.soften(student.logits, T)).mean()

    def soften(self, logits: Tensor, T: Tensor) -> Tensor:
        """Return log softmax(logits / T), (N, C), of z-scores with `standardize`; the gradient reaches T too."""
        scores = z_scores(logits) if self.standardize else at_least_float32(logits)
        return log_softened(scores / T, 1.0)

    def formula(self) -> str:
        learned = f"T={self.T_start:g}+{self.T_range:g}·σ(θ)"
        curriculum = f"λ={self.lambda_max:g} from epoch {self.ramp_epochs:g}"
        return f"T²·KL(p_t ‖ p_s; {learned}, {curriculum}{'; z-scores' if self.standardize else ''})"


def temperature(theta: Tensor, T_start: float, T_range: float) -> Tensor:
    """Return T_start + T_range·σ(θ), above T_start and below T_start + T_range."""
    return T_start + T_range * theta.sigmoid()


def ramp(epoch: int, epochs: int) -> float:
    """Return λ as a share of its maximum, ½·(1 − cos(π·min(n/E, 1))) in the n-th of E epochs (Eq. 11).

    `epoch` counts from 0, n from 1 as in the published code, where the same curve falls from 0 to −1.
    """
    return 0.5 * (1 - math.cos(math.pi * min((epoch + 1) / epochs, 1.0))) if epochs else 1.0


def reversed_gradient(values: Tensor, strength: float) -> Tensor:
    """Return the same values, bit for bit, with the gradient multiplied by −strength (Ganin & Lempitsky 2015)."""
    return values.detach() - strength * (values - values.detach())
