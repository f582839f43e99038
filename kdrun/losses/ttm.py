"""Transformed teacher matching (Zheng & Yang, "Knowledge Distillation Based on Transformed Teacher Matching", 2024)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.base import SoftTerm, kl_divergence
from kdrun.models.base import Outputs

__all__ = ["TTM", "WTTM"]


class TTM(SoftTerm):
    """KL(p^γ/Σp^γ ‖ q): the teacher's probabilities are raised to a power and renormalised, the student's are not.

    p^γ/Σp^γ is the softmax at T = 1/γ, so this is `kd` with teacher_T = 1/γ, student_T = 1 and no factor. The paper
    shows that dropping the student's temperature adds a Rényi entropy to distillation, as a regulariser (ICLR 2024,
    section 3). The minimum 0 is reached where the student's probabilities equal the transformed ones, not the
    teacher's own. Raise ValueError if γ is not above 0.
    """

    takes_top_k = True
    notation = "KL(p_t^γ/Σp_t^γ ‖ p_s; γ={gamma:g}{scores})"

    def __init__(self, gamma: float = 0.1, standardize: bool = False) -> None:
        if not (math.isfinite(gamma) and gamma > 0):
            raise ValueError(f"gamma must be a finite number above 0, got {gamma}; 0.1 is usual, 1 changes nothing")
        super().__init__(1.0, teacher_T=1 / gamma, T_squared=False, standardize=standardize)
        self.gamma = float(gamma)

    def per_sample(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        return kl_divergence(log_p_t, log_p_s)

    def formula(self) -> str:
        return self.notation.format(gamma=self.gamma, scores="; z-scores" if self.standardize else "")


class WTTM(TTM):
    """Σ_j p_j^γ·KL(p^γ/Σp^γ ‖ q): transformed teacher matching, weighted by how smooth a sample's p is.

    The paper's section 4. For γ < 1 the weight Σ_j p_j^γ lies between 1, if the teacher is certain, and C^(1 − γ), if
    its probabilities are uniform. With several teachers, both their transformed probabilities and these weights are
    averaged. The minimum is 0, as in `TTM`. Raise ValueError if γ is not above 0.
    """

    takes_top_k = False  # top-k spreads the rest evenly, which changes Σ p^γ
    notation = "Σp_t^γ·KL(p_t^γ/Σp_t^γ ‖ p_s; γ={gamma:g}{scores})"

    def __init__(self, gamma: float = 0.2, standardize: bool = False) -> None:
        super().__init__(gamma, standardize)

    def together(self, student: Outputs, teachers: Sequence[Outputs], weights: Sequence[float], batch: Batch) -> Tensor:
        log_p_t = torch.stack([self.soften(teacher.logits.detach(), 1.0) for teacher in teachers])
        smoothness = torch.stack(
            [weight * power_sum(log_p, self.gamma) for weight, log_p in zip(weights, log_p_t, strict=True)]
        ).sum(0)
        transformed = self.averaged(teachers, weights, self.teacher_T)
        return (smoothness * self.per_sample(transformed, self.soften(student.logits, self.student_T))).mean()


def power_sum(log_p: Tensor, gamma: float) -> Tensor:
    """Return Σ_j p_j^γ of each sample, (N,), the paper's U_γ, from log-probabilities (N, C)."""
    return (gamma * log_p).exp().sum(dim=1)
