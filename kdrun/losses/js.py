"""Jensen–Shannon distillation (Agarwal et al., "On-Policy Distillation of Language Models", ICLR 2024)."""

import math

import torch
from torch import Tensor

from kdrun.losses.base import SoftTerm, kl_divergence

__all__ = ["JS"]


class JS(SoftTerm):
    """T²·[β·KL(p_t ‖ m) + (1 − β)·KL(p_s ‖ m)], m = β·p_t + (1 − β)·p_s: both against their mean.

    The paper's generalised divergence D_JSD(β). However wrong the student is, the loss is at most T² times the
    entropy of (β, 1 − β), which is log 2 at β = ½; it is 0 where the student equals the teacher. As β goes to 0, the
    divergence divided by β goes to KL(p_t ‖ p_s); as β goes to 1, the divergence divided by 1 − β goes to
    KL(p_s ‖ p_t); at both ends the divergence itself is 0. Raise ValueError unless 0 < β < 1.
    """

    takes_top_k = True

    def __init__(
        self,
        T: float,
        beta: float = 0.5,
        teacher_T: float | None = None,
        student_T: float | None = None,
        T_squared: bool = True,
        standardize: bool = False,
    ) -> None:
        super().__init__(T, teacher_T, student_T, T_squared, standardize)
        if not 0 < beta < 1:
            raise ValueError(f"beta must lie above 0 and below 1, got {beta}; 0.5 is symmetric")
        self.beta = float(beta)
        self.notation = f"JS({{t}}, {{s}}; β={self.beta:g}{{T}})"

    def per_sample(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        return jensen_shannon(log_p_t, log_p_s, self.beta)


def jensen_shannon(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """Return β·KL(p ‖ m) + (1 − β)·KL(q ‖ m) of each sample, (N,), with m = β·p + (1 − β)·q, from (N, C)."""
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return beta * kl_divergence(log_p, log_m) + (1 - beta) * kl_divergence(log_q, log_m)
