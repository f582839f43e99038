"""Variational information distillation (Ahn et al., CVPR 2019)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdrun.data.batches import Batch
from kdrun.losses import layers
from kdrun.losses.base import Setting
from kdrun.models.base import Outputs

__all__ = ["VID"]

LEAST = 1e-5  # least variance, when softplus gives 0: the paper's epsilon, with the value of the authors' code


def negative_log_likelihood(mean: Tensor, f_t: Tensor, variance: Tensor) -> Tensor:
    """Return ½·mean[(μ − f_t)²/σ² + log σ²] of each sample, (N,), from (N, c, h, w) twice and (c,).

    −log q(t | s) of a Gaussian with one variance for each channel, without its constant (Ahn et al. 2019,
    section 2); the mean over channels and places, instead of the sum, follows the authors' code.
    """
    variance = variance[:, None, None]
    return 0.5 * ((mean - f_t).square() / variance + variance.log()).flatten(1).mean(1)


def inverse_softplus(y: float) -> float:
    """Return x such that log(1 + e^x) = y, for any y above 0, however large."""
    return y + math.log(-math.expm1(-y))


class Gaussian(nn.Module):
    """A Gaussian of a teacher's stage given the student's: a mean for every value, a variance for every channel.

    μ is three 1×1 convolutions with ReLU between them, σ² = softplus(a) + 1e-5. Both are trained with the student;
    in mdistiller's code a is not trained, so the variances keep their initial value.
    """

    def __init__(self, from_: int, to: int, initial_variance: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(from_, to, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(to, to, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(to, to, 1, bias=False),
        )
        self.a = nn.Parameter(torch.full((to,), inverse_softplus(initial_variance - LEAST)))

    def variance(self) -> Tensor:
        """Return σ² of each channel, (c,)."""
        return F.softplus(self.a) + LEAST

    def forward(self, f_s: Tensor, f_t: Tensor) -> Tensor:
        """Return the negative log-likelihood of the teacher's map, a scalar."""
        return negative_log_likelihood(self.mean(f_s), f_t, self.variance()).mean()


class VID(layers.MapTerm):
    """Σ_l ½·mean[(μ(f_s) − f_t)²/σ² + log σ²]: the student's maps are to predict the teacher's.

    A bound on the mutual information of both; it has no fixed minimum, because σ² shrinks with the error.
    Maps of different sizes are compared at the smaller size, and the inner convolutions are as wide as the
    teacher's stage, both as in RepDistiller's VIDLoss. Raise ValueError if `initial_variance` is not above 1e-5,
    the least that σ² can be.
    """

    def __init__(
        self,
        initial_variance: float = 5.0,
        student_layers: Sequence[str] | None = None,
        teacher_layers: Sequence[str] | None = None,
    ) -> None:
        super().__init__(student_layers, teacher_layers)
        if not (math.isfinite(initial_variance) and initial_variance > LEAST):
            raise ValueError(f"initial_variance must be a finite number above {LEAST}, got {initial_variance}")
        self.initial_variance = initial_variance
        self.stages = nn.ModuleList()

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        super().prepare(student, teacher, setting)
        self.stages = nn.ModuleList(
            Gaussian(f_s.shape[1], f_t.shape[1], self.initial_variance) for f_s, f_t in self.maps(student, teacher)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        stages: list[Tensor] = [
            stage(*layers.alike(f_s, f_t))
            for stage, (f_s, f_t) in zip(self.stages, self.maps(student, teacher), strict=True)
        ]
        return sum(stages[1:], start=stages[0])

    def formula(self) -> str:
        return "½·[Σ_l mean((μ(f_s) − f_t)²/σ² + log σ²)]"
