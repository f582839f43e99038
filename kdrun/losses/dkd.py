"""Decoupled distillation (Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022)."""

import math

from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.base import SoftTerm, kl_divergence, not_negative, warm_up
from kdrun.losses.targets import is_target, labelled_mean, log_rest, target_and_rest

__all__ = ["DKD"]


class DKD(SoftTerm):
    """T²·[α·TCKD + β·NCKD] (Eq. 7): distillation split into the target class and all the others.

    Plain distillation weighs NCKD by 1 − p_t,y (Eq. 6), least if the teacher is confident; here the weight is β.
    Averaged over the labelled samples of the batch: an unlabelled one (−1) has no target class. The loss grows to
    its full size over `warmup_epochs` epochs, from 1/warmup_epochs in the first; 0 is no warm-up. Raise ValueError
    if a number is negative.
    """

    needs_labels = True

    def __init__(
        self,
        T: float,
        alpha: float = 1.0,
        beta: float = 8.0,
        warmup_epochs: int = 20,
        teacher_T: float | None = None,
        student_T: float | None = None,
        T_squared: bool = True,
        standardize: bool = False,
    ) -> None:
        super().__init__(T, teacher_T, student_T, T_squared, standardize)
        not_negative(alpha=alpha, beta=beta, warmup_epochs=warmup_epochs)
        self.alpha, self.beta, self.warmup_epochs = float(alpha), float(beta), warmup_epochs
        ramp = f"min(epoch/{warmup_epochs:g}, 1)·" if warmup_epochs else ""
        self.notation = f"{ramp}[{self.alpha:g}·TCKD + {self.beta:g}·NCKD]({{t}} ‖ {{s}}{{T}})"

    def compare(self, log_p_t: Tensor, log_p_s: Tensor, batch: Batch) -> Tensor:
        labels = batch.labels
        losses = self.alpha * tckd(log_p_t, log_p_s, labels) + self.beta * nckd(log_p_t, log_p_s, labels)
        return self.factor * warm_up(batch.epoch, self.warmup_epochs) * labelled_mean(losses, labels)


def tckd(log_p_t: Tensor, log_p_s: Tensor, labels: Tensor) -> Tensor:
    """Return the KL divergence between (p_y, 1 − p_y) of teacher and student, (N,): Eq. 6, first part.

    From log-probabilities (N, C) and labels (N,); the value of an unlabelled sample is meaningless.
    """
    return kl_divergence(target_and_rest(log_p_t, labels), target_and_rest(log_p_s, labels))


def nckd(log_p_t: Tensor, log_p_s: Tensor, labels: Tensor) -> Tensor:
    """Return the KL divergence between the distributions over all classes but the target, (N,): Eq. 6, second part.

    From log-probabilities (N, C) and labels (N,); the value of an unlabelled sample is meaningless. The target is
    left out; the published code subtracts 1000 from its logit, which is too little if logits are large.
    """
    target = is_target(log_p_t, labels)
    log_q_t, log_q_s = log_p_t - log_rest(log_p_t, target), log_p_s - log_rest(log_p_s, target)
    q_t = log_q_t.masked_fill(target, -math.inf).exp()
    return (q_t * (log_q_t - log_q_s).masked_fill(target, 0)).sum(dim=1)
