"""Soft cross-entropy (Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015)."""

from torch import Tensor

from kdrun.losses.base import SoftTerm

__all__ = ["SoftCE", "soft_cross_entropy"]


def soft_cross_entropy(log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
    """Return −Σ_j p_t,j log p_s,j of each sample, (N,), from log-probabilities (N, C)."""
    return -(log_p_t.exp() * log_p_s).sum(dim=1)


class SoftCE(SoftTerm):
    """T²·CE(p_t, p_s): the cross-entropy with the teacher's probabilities as labels.

    The student's gradients are those of `KD`; the value is larger by T²·H(p_t), the entropy of the teacher's
    probabilities, which is also the minimum.
    """

    takes_top_k = True
    notation = "CE({t}, {s}{T})"

    def per_sample(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        return soft_cross_entropy(log_p_t, log_p_s)
