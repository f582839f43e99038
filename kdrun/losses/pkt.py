"""Probabilistic knowledge transfer (Passalis & Tefas, "Learning Deep Representations with Probabilistic
Knowledge Transfer", ECCV 2018)."""

import torch
from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.layers import VectorTerm
from kdrun.models.base import Outputs

__all__ = ["PKT"]

EPS = 1e-7  # as in the published code, added to norms and inside logarithms


def affinities(e: Tensor) -> Tensor:
    """Return q_ij ∝ (cos(e_i, e_j) + 1) / 2: the probability that sample i picks sample j, (N, d) -> (N, N).

    Section 3 of the paper, with its cosine kernel. Rows sum to 1 over all samples, i itself included, as in
    the published code; the paper leaves i out.
    """
    norms: Tensor = torch.linalg.vector_norm(e, dim=1, keepdim=True)  # at 0 its gradient is 0
    unit = e / (norms + EPS)
    kernel = ((unit @ unit.T + 1) / 2).clamp(min=0)  # rounding may put the cosine of opposite vectors below −1
    return kernel / kernel.sum(1, keepdim=True)


def divergence(e_s: Tensor, e_t: Tensor) -> Tensor:
    """Return Σ_j q_t,ij log(q_t,ij / q_s,ij) of each sample i, (N,), from (N, d_s) and (N, d_t).

    The published code takes the mean over the N² pairs, which is the mean of these values divided by N. (The paper
    writes the sum.)
    """
    q_s, q_t = affinities(e_s), affinities(e_t)
    return (q_t * ((q_t + EPS) / (q_s + EPS)).log()).sum(1)


class PKT(VectorTerm):
    """mean q_t log(q_t / q_s): the affinities of a batch's samples, as probabilities, are to be the teacher's.

    On the embeddings, (N, d_s) and (N, d_t), or on the layers that are named.
    Raise ValueError if a network does not have a layer.
    """

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        e_s, e_t = self.vectors(student, teacher)
        return divergence(e_s, e_t).mean() / len(e_s)

    def formula(self) -> str:
        return "KL(q_t ‖ q_s)/N"
