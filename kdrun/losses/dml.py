"""Mutual learning (Zhang et al., "Deep Mutual Learning", CVPR 2018)."""

from collections.abc import Sequence

from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.base import SoftTerm, kl_divergence
from kdrun.models.base import Outputs

__all__ = ["DML"]


class DML(SoftTerm):
    """Σ_j KL(p_j ‖ p_i) / (M − 1): each of M students learns from the logits of its M − 1 peers.

    No gradient reaches a peer: its logits are detached. The loss is the mean of the divergences, as in the
    paper for more than two students (section 3.3). The divergence from the peers' mean, which is smaller, is the
    paper's other variant, DML_e.
    """

    peers = True
    notation = "mean_j KL({t} ‖ {s}{T})"

    def per_sample(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        return kl_divergence(log_p_t, log_p_s)

    def together(self, student: Outputs, teachers: Sequence[Outputs], weights: Sequence[float], batch: Batch) -> Tensor:
        log_p_s = self.soften(student.logits, self.student_T)
        terms = [
            weight * self.compare(self.soften(peer.logits.detach(), self.teacher_T), log_p_s, batch)
            for peer, weight in zip(teachers, weights, strict=True)
        ]
        return sum(terms[1:], start=terms[0])

    def formula(self) -> str:
        return super().formula().replace("p_t", "p_j")
