"""Refined logit distillation, RLD (Sun et al., "Knowledge Distillation with Refined Logits", 2024)."""

import math
from collections.abc import Sequence

from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.base import SoftTerm, kl_divergence, not_negative, warm_up
from kdrun.losses.targets import labelled_mean, of_target, target_and_rest
from kdrun.models.base import Outputs

__all__ = ["RLD"]


class RLD(SoftTerm):
    """α·α_T²·confidence + β·T²·correlation: what a teacher knows of a sample, without what its label contradicts.

    Confidence: the student is to be as sure of the label as the teacher is of its top class, right or wrong (the
    paper's sample confidence, at α_T). Correlation: KL among the classes that the teacher ranks strictly below the
    label (masked correlation, at T); a sample with no such class gives 0. Where the teacher is right this is
    `dkd`, with a temperature for each part. Averaged over the labelled samples of the batch. The loss grows to its
    full size over `warmup_epochs` epochs, from 1/warmup_epochs in the first; 0 is no warm-up. The minimum is 0; a
    student that equals the teacher reaches it where the teacher is right. Raise ValueError if a number is out of range.
    """

    needs_labels = True

    def __init__(
        self,
        T: float,
        alpha: float = 1.0,
        beta: float = 8.0,
        alpha_T: float = 1.0,
        warmup_epochs: int = 20,
        teacher_T: float | None = None,
        student_T: float | None = None,
        T_squared: bool = True,
        standardize: bool = False,
    ) -> None:
        super().__init__(T, teacher_T, student_T, T_squared, standardize)
        not_negative(alpha=alpha, beta=beta, warmup_epochs=warmup_epochs)
        if not (math.isfinite(alpha_T) and alpha_T > 0):
            raise ValueError(f"alpha_T must be a finite number above 0, got {alpha_T}; 1 is published")
        self.alpha, self.beta, self.alpha_T = float(alpha), float(beta), float(alpha_T)
        self.alpha_factor = self.alpha_T**2 if T_squared else 1.0
        self.warmup_epochs = warmup_epochs

    def together(self, student: Outputs, teachers: Sequence[Outputs], weights: Sequence[float], batch: Batch) -> Tensor:
        confidence = sample_confidence(
            self.averaged(teachers, weights, self.alpha_T), self.soften(student.logits, self.alpha_T), batch.labels
        )
        correlation = masked_correlation(
            self.averaged(teachers, weights, self.teacher_T), self.soften(student.logits, self.student_T), batch.labels
        )
        losses = self.alpha * self.alpha_factor * confidence + self.beta * self.factor * correlation
        return warm_up(batch.epoch, self.warmup_epochs) * labelled_mean(losses, batch.labels)

    def formula(self) -> str:
        ramp = f"min(epoch/{self.warmup_epochs:g}, 1)·" if self.warmup_epochs else ""
        confidence = f"{self.alpha:g}·{_factor(self.alpha_factor, self.alpha_T)}confidence(T={self.alpha_T:g})"
        T = f"T={self.student_T:g}"
        if self.teacher_T != self.student_T:
            T = f"T={self.teacher_T:g} and {self.student_T:g}"
        correlation = f"{self.beta:g}·{_factor(self.factor, self.student_T)}correlation({T})"
        return f"{ramp}[{confidence} + {correlation}](p_t ‖ p_s{'; z-scores' if self.standardize else ''})"


def sample_confidence(log_p_t: Tensor, log_p_s: Tensor, labels: Tensor) -> Tensor:
    """Return KL((p_m, 1 − p_m) ‖ (q_y, 1 − q_y)) of each sample, (N,): m is the teacher's top class, y the label.

    From log-probabilities (N, C) and labels (N,); the value of an unlabelled sample is meaningless.
    """
    return kl_divergence(target_and_rest(log_p_t, log_p_t.argmax(dim=1)), target_and_rest(log_p_s, labels))


def masked_correlation(log_p_t: Tensor, log_p_s: Tensor, labels: Tensor) -> Tensor:
    """Return the KL divergence among the classes that the teacher ranks below the label, (N,); 0 if there are none.

    From log-probabilities (N, C) and labels (N,); the value of an unlabelled sample is meaningless. The other classes
    are left out; the published code sets their logits to −1e9.
    """
    below = log_p_t < of_target(log_p_t, labels)
    kept = below | ~below.any(dim=1, keepdim=True)  # keep all if none is below: the log of an empty sum is −∞
    log_q_t, log_q_s = (
        log_p - log_p.masked_fill(~kept, -math.inf).logsumexp(dim=1, keepdim=True) for log_p in (log_p_t, log_p_s)
    )
    return (log_q_t.masked_fill(~below, -math.inf).exp() * (log_q_t - log_q_s)).sum(dim=1)


def _factor(factor: float, T: float) -> str:
    """Return the factor T² as a formula shows it; nothing if the factor is 1."""
    return "" if factor == 1 else f"{T:g}²·"
