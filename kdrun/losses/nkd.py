"""NKD (Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach", ICCV 2023)."""

import math
from collections.abc import Sequence

from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.base import SoftTerm, not_negative
from kdrun.losses.targets import is_target, labelled_mean, log_rest, of_target
from kdrun.models.base import Outputs

__all__ = ["NKD"]


class NKD(SoftTerm):
    """−p_y·log q_y + γ·T²·CE(p̂, q̂): one part for the label's class, one for the distribution among the others.

    The paper's L_nkd: p and q are the teacher's and the student's probabilities at T = 1, p̂ and q̂ those at T among
    the classes other than the label y. So the other classes sum to 1 for both networks. The first part pulls
    q_y to 1, however sure the teacher is; so the minimum is γ·T²·H(p̂), reached with q̂ = p̂ and q_y = 1, and not by
    a student that equals the teacher. Averaged over the labelled samples of the batch. Raise
    ValueError if γ is negative.
    """

    needs_labels = True

    def __init__(
        self,
        T: float,
        gamma: float = 1.5,
        teacher_T: float | None = None,
        student_T: float | None = None,
        T_squared: bool = True,
        standardize: bool = False,
    ) -> None:
        super().__init__(T, teacher_T, student_T, T_squared, standardize)
        not_negative(gamma=gamma)
        self.gamma = float(gamma)

    def together(self, student: Outputs, teachers: Sequence[Outputs], weights: Sequence[float], batch: Batch) -> Tensor:
        of_label = target_cross_entropy(
            self.averaged(teachers, weights, 1.0), self.soften(student.logits, 1.0), batch.labels
        )
        of_others = others_cross_entropy(
            self.averaged(teachers, weights, self.teacher_T), self.soften(student.logits, self.student_T), batch.labels
        )
        return labelled_mean(of_label + self.gamma * self.factor * of_others, batch.labels)

    def formula(self) -> str:
        factor = "" if self.factor == 1 else f"{self.student_T:g}²·"
        scores = "; z-scores" if self.standardize else ""
        others = f"CE(p̂_t, p̂_s; T={self.student_T:g})"
        if self.teacher_T != self.student_T:
            others = f"CE(p̂_t(T={self.teacher_T:g}), p̂_s(T={self.student_T:g}))"
        return f"[−p_t,y·log p_s,y + {self.gamma:g}·{factor}{others}{scores}]"


def target_cross_entropy(log_p_t: Tensor, log_p_s: Tensor, labels: Tensor) -> Tensor:
    """Return −p_y·log q_y of each sample, (N,), the first part of L_nkd.

    From log-probabilities (N, C) and labels (N,); the value of an unlabelled sample is meaningless.
    """
    return -(of_target(log_p_t, labels).exp() * of_target(log_p_s, labels)).squeeze(1)


def others_cross_entropy(log_p_t: Tensor, log_p_s: Tensor, labels: Tensor) -> Tensor:
    """Return −Σ_{j≠y} p̂_j·log q̂_j of each sample, (N,), the second part of L_nkd; p̂_j = p_j / Σ_{k≠y} p_k.

    From log-probabilities (N, C) and labels (N,); the value of an unlabelled sample is meaningless.
    """
    target = is_target(log_p_t, labels)
    p_t = (log_p_t - log_rest(log_p_t, target)).masked_fill(target, -math.inf).exp()
    return -(p_t * (log_p_s - log_rest(log_p_s, target))).sum(dim=1)
