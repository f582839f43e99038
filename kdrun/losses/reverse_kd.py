"""Reverse KL: classical distillation (Hinton et al. 2015) with the arguments of the divergence swapped."""

from torch import Tensor

from kdrun.losses.base import SoftTerm, kl_divergence

__all__ = ["ReverseKD"]


class ReverseKD(SoftTerm):
    """T²·KL(p_s ‖ p_t): large if the student gives probability to classes to which the teacher gives none.

    It is mode-seeking, while KL(p_t ‖ p_s) covers all modes of the teacher. Neither direction is bounded.
    """

    takes_top_k = True
    notation = "KL({s} ‖ {t}{T})"

    def per_sample(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        return kl_divergence(log_p_s, log_p_t)
