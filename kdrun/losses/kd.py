"""Knowledge distillation (Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015)."""

from torch import Tensor

from kdrun.losses.base import SoftTerm, kl_divergence

__all__ = ["KD"]


class KD(SoftTerm):
    """T²·KL(p_t ‖ p_s): the student's probabilities are to be the teacher's.

    Section 2 of the paper, with KL instead of cross-entropy: the gradients are the same, and the minimum is 0.
    """

    takes_top_k = True
    notation = "KL({t} ‖ {s}{T})"

    def per_sample(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        return kl_divergence(log_p_t, log_p_s)
