"""CA-MKD (Zhang, Chen & Wang, "Confidence-Aware Multi-Teacher Knowledge Distillation", ICASSP 2022)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdrun.losses.base import SoftTerm, kl_divergence, log_softened

if TYPE_CHECKING:
    from kdrun.data.batches import Batch
    from kdrun.models.base import Outputs

__all__ = ["CAMKD"]


class CAMKD(SoftTerm):
    """T²·Σ_k w_k·KL(p_k ‖ p_s): of several teachers, a sample hears most the one that gets it right (Eq. 4).

    The weights w_k (Eq. 3) are each sample's own and sum to 1. Where the configuration weighs the teachers,
    w_k is multiplied by that and brought back to a sum of 1. A single teacher has weight 1, and so has this
    term the value of plain distillation; an unlabelled sample (−1) hears the teachers by their configured
    weights alone. The published code divides by the number of teachers once more, which the paper does not.

    The paper's second part, on feature maps, is not here: its weights come from each teacher's classification
    layer applied to the student's maps, and a term sees what a teacher says, not its layers.
    """

    needs_labels = True
    notation = "[Σ_k w_k·KL({t} ‖ {s}{T})]"

    def per_sample(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        return kl_divergence(log_p_t, log_p_s)

    def together(
        self, student: "Outputs", teachers: "Sequence[Outputs]", weights: Sequence[float], batch: "Batch"
    ) -> Tensor:
        logits = [teacher.logits.detach() for teacher in teachers]
        log_p_s = self.soften(student.logits, self.student_T)
        losses = torch.stack([self.per_sample(self.soften(z, self.teacher_T), log_p_s) for z in logits])
        log_p_t = torch.stack([log_softened(z, 1.0) for z in logits])
        sure = confidences(log_p_t, batch.labels)
        shares = torch.stack([weight * w for weight, w in zip(weights, sure, strict=True)])
        return self.factor * (shares / shares.sum(0) * losses).sum(0).mean()

    def formula(self) -> str:
        return super().formula().replace("p_t", "p_k")


def confidences(log_p_t: Tensor, labels: Tensor) -> Tensor:
    """w_k = (1 − softmax_k CE_k) / (K − 1), (K, N), which sum to 1 over the K teachers (Eq. 3).

    CE_k is the cross-entropy of teacher k's log-probabilities, (K, N, C), with the labels (N,). Equal weights
    for a sample without a label; 1 for a single teacher.
    """
    count = len(log_p_t)
    if count == 1:
        return torch.ones_like(log_p_t[:, :, 0])
    target = labels.clamp(min=0).expand(count, -1)[:, :, None]
    doubts = (-log_p_t.gather(2, target).squeeze(2)).softmax(dim=0)
    return ((1 - doubts) / (count - 1)).masked_fill(labels < 0, 1 / count)
