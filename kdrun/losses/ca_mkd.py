"""CA-MKD (Zhang, Chen & Wang, "Confidence-Aware Multi-Teacher Knowledge Distillation", ICASSP 2022)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.base import SoftTerm, kl_divergence, log_softened
from kdrun.models.base import Outputs

__all__ = ["CAMKD"]


class CAMKD(SoftTerm):
    """T²·Σ_k w_k·KL(p_k ‖ p_s): teachers closer to a sample's label weigh more for it (Eq. 4).

    Each sample has its own weights w_k (Eq. 3), which sum to 1. If the configuration sets weights of teachers, w_k
    is multiplied by them and renormalised to a sum of 1. With a single teacher, of weight 1, the term is plain
    distillation; for an unlabelled sample (−1) only the configured weights are used. The published code
    divides by the number of teachers once more, which the paper does not.

    The paper's second part, on feature maps, is left out: its weights come from each teacher's classification
    layer applied to the student's maps, and a term has a teacher's outputs, not its layers.
    """

    needs_labels = True
    notation = "[Σ_k w_k·KL({t} ‖ {s}{T})]"

    def per_sample(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        return kl_divergence(log_p_t, log_p_s)

    def together(self, student: Outputs, teachers: Sequence[Outputs], weights: Sequence[float], batch: Batch) -> Tensor:
        logits = [teacher.logits.detach() for teacher in teachers]
        log_p_s = self.soften(student.logits, self.student_T)
        losses = torch.stack([self.per_sample(self.soften(z, self.teacher_T), log_p_s) for z in logits])
        log_p_t = torch.stack([log_softened(z, 1.0) for z in logits])
        confidence = confidences(log_p_t, batch.labels)
        shares = torch.stack([weight * w for weight, w in zip(weights, confidence, strict=True)])
        return self.factor * (shares / shares.sum(0) * losses).sum(0).mean()

    def formula(self) -> str:
        return super().formula().replace("p_t", "p_k")


def confidences(log_p_t: Tensor, labels: Tensor) -> Tensor:
    """Return w_k = (1 − softmax_k CE_k) / (K − 1), (K, N), which sum to 1 over the K teachers (Eq. 3).

    CE_k is the cross-entropy of teacher k's log-probabilities, (K, N, C), with the labels (N,). Equal weights
    for a sample without a label; 1 for a single teacher.
    """
    count = len(log_p_t)
    if count == 1:
        return torch.ones_like(log_p_t[:, :, 0])
    target = labels.clamp(min=0).expand(count, -1)[:, :, None]
    doubts = (-log_p_t.gather(2, target).squeeze(2)).softmax(dim=0)
    return ((1 - doubts) / (count - 1)).masked_fill(labels < 0, 1 / count)
