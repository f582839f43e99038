"""Multi-level logit distillation, MLKD (Jin, Wang & Lin, "Multi-Level Logit Distillation", CVPR 2023).

It compares student and teacher on two views of the same images, a weakly and a strongly augmented one.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.base import Setting, Term, kl_divergence, log_softened, z_scores
from kdrun.models.base import Outputs

__all__ = ["MLKD"]

READ_THE_WEAK_VIEW = (2.0, 6.0)
"""Temperatures at which the released code reads the weak view where it means the strong one."""


class MLKD(Term):
    """Σ_T [KD + batch + class] on a weak and a strong view: compares images, and relations of images and of classes.

    KD is T²·KL(p_t ‖ p_s), batch ‖P Pᵀ − Q Qᵀ‖²_F / N, class ‖Pᵀ P − Qᵀ Q‖²_F / C, where P and Q (N, C) are the
    teacher's and the student's probabilities at T. On the weak view, KD and batch count only the half of the images
    that the teacher is less sure of, and class only the half of the classes with the smaller sum of the teacher's
    probabilities; the rest counts as 0. The strong view counts in full. The minimum is 0, where the student equals the
    teacher.

    The released code computes another loss, which `released` selects: its masks multiply values that are already
    averaged, so each is only scaled by the share that the mask keeps; the strong view's KD reads the weak view at T = 2
    and 6; the strong view's batch and class terms are computed but not added. The cross-entropy of both views, with
    weight 1 each, is a term of its own.

    The strong view is read from the field `strong` of the student's and of the teacher's outputs. With `standardize`
    KD, and only KD, compares z-scores, as in the code of MLKD+LS (Sun et al. 2024). Raise ValueError if there is no
    temperature or one is not above 0, and in `prepare` if there is no strong view.
    """

    needs_strong = True
    logits_only = True  # of both views

    def __init__(
        self,
        temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
        released: bool = False,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        if not temperatures or not all(math.isfinite(T) and T > 0 for T in temperatures):
            raise ValueError(f"temperatures must be finite numbers above 0, got {list(temperatures)}; 2 to 6 are usual")
        self.temperatures = [float(T) for T in temperatures]
        self.released, self.standardize = released, standardize

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        strong_view("student", student)
        strong_view("teacher", teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        weak = student.logits, teacher.logits.detach()
        strong = strong_view("student", student).logits, strong_view("teacher", teacher).logits.detach()
        p = log_softened(weak[1], 1.0).exp()
        samples, classes = less_sure(p.amax(dim=1)), less_sure(p.sum(dim=0))
        compare = self._as_released if self.released else self._as_described
        losses = [compare(T, weak, strong, samples, classes) for T in self.temperatures]
        return sum(losses[1:], start=losses[0])

    def formula(self) -> str:
        masks = "half of the weak view"
        if self.released:
            masks = (
                "as released: the weak view times its masks' shares, KD of the strong view, at T=2 and 6 of the weak"
            )
        temperatures = ", ".join(f"{T:g}" for T in self.temperatures)
        scores = "; KD of z-scores" if self.standardize else ""
        return f"Σ_T [T²·KL + batch + class](p_t, p_s; T={temperatures}; weak and strong view; {masks}{scores})"

    def _as_described(
        self, T: float, weak: tuple[Tensor, Tensor], strong: tuple[Tensor, Tensor], samples: Tensor, classes: Tensor
    ) -> Tensor:
        kd, batch, class_ = levels(*weak, T, self.standardize)
        kept = (kd * samples).mean() + (batch * samples).mean() + (class_ * classes).mean()
        kd, batch, class_ = levels(*strong, T, self.standardize)
        return kept + kd.mean() + batch.mean() + class_.mean()

    def _as_released(
        self, T: float, weak: tuple[Tensor, Tensor], strong: tuple[Tensor, Tensor], samples: Tensor, classes: Tensor
    ) -> Tensor:
        kd, batch, class_ = (level.mean() for level in levels(*weak, T, self.standardize))
        of_samples, of_classes = samples.to(kd.dtype).mean(), classes.to(kd.dtype).mean()
        of_strong = kd if T in READ_THE_WEAK_VIEW else levels(*strong, T, self.standardize)[0].mean()
        return (kd + batch) * of_samples + class_ * of_classes + of_strong


def levels(z_s: Tensor, z_t: Tensor, T: float, standardize: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Return the values of KD and of the batch term for each sample, (N,), and of the class term for each class, (C,).

    From logits (N, C); each of the three terms is the mean of its values. With `standardize` KD is that of z-scores.
    """
    log_p, log_q = log_softened(z_t, T), log_softened(z_s, T)
    p, q = log_p.exp(), log_q.exp()
    if standardize:
        log_p, log_q = log_softened(z_scores(z_t), T), log_softened(z_scores(z_s), T)
    return T**2 * kl_divergence(log_p, log_q), relations(p, q), relations(p.T, q.T)


def relations(p: Tensor, q: Tensor) -> Tensor:
    """Return Σ_j (P Pᵀ − Q Qᵀ)²_ij of each row i, (N,), from (N, C); their sum is the squared Frobenius norm."""
    return (p @ p.T - q @ q.T).square().sum(dim=1)


def less_sure(confidence: Tensor) -> Tensor:
    """Return which values are at most the median, (n,) bool: half of them, rounded up, and more if values are equal."""
    return confidence <= confidence.sort().values[(len(confidence) - 1) // 2]


def strong_view(whose: str, given: Outputs) -> Outputs:
    """Return a network's outputs for the strong view. Raise ValueError if there are none."""
    if given.strong is None:
        raise ValueError(f"MLKD compares two views of a batch, and the {whose}'s outputs hold one")
    return given.strong
