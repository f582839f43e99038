"""Cross-entropy with the labels: the hard term, and the whole loss of a baseline."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.base import Setting, Term, at_least_float32
from kdrun.models.base import Outputs

__all__ = ["CE"]

UNLABELLED = -1
BALANCED = "balanced"


class CE(Term):
    """CE(y, p_s): cross-entropy of the student at T=1 with the labels, (N, C) against (N,).

    Averaged over the labelled samples of the batch; unlabelled ones (−1) do not count. It is 0 if none is labelled.
    For a mixed image it is λ·CE(y_a) + (1 − λ)·CE(y_b), where λ is the share of its own label (Zhang et al. 2018).
    `label_smoothing` is the share ε of a label that is spread over all classes (Szegedy et al. 2016). With
    `class_weights="balanced"` a sample of class c has weight N / (C·n_c), where n_c of the N labelled training images
    are of that class (King & Zeng 2001; scikit-learn's `balanced`), and the mean is weighted, as in torch. If the
    student sees a second, strong view of the images, the cross-entropy of that view is added (Jin et al. 2023). Raise
    ValueError if `label_smoothing` is outside [0, 1] or `class_weights` is neither None nor "balanced".
    """

    needs_teacher = False
    needs_labels = True
    takes_two_labels = True

    def __init__(self, label_smoothing: float = 0.0, class_weights: str | None = None) -> None:
        super().__init__()
        if class_weights not in (None, BALANCED):
            raise ValueError(f"class_weights={class_weights}: choose balanced, or null")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}; 0.1 is usual")
        self.label_smoothing = float(label_smoothing)
        self.balanced = class_weights == BALANCED
        self.weights: Tensor | None
        self.register_buffer("weights", None, persistent=False)  # made from the labels, which the spec identifies

    def prepare(self, student: Outputs, teacher: Outputs | None, setting: Setting) -> None:
        if self.balanced:
            self.weights = balanced(setting.labels, student.logits.shape[1])

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        value = self._of_view(student.logits, batch)
        return value if student.strong is None else value + self._of_view(student.strong.logits, batch)

    def _of_view(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy of one view's logits (N, C)."""
        logits = at_least_float32(logits)
        if batch.partner_labels is not None and batch.share is not None:
            share, partners = batch.share.to(logits.dtype), batch.partner_labels
            own, other = (self._compared(logits, labels, "none") for labels in (batch.labels, partners))
            total = (share * self._weighed(batch.labels) + (1 - share) * self._weighed(partners)).sum()
            return (share * own + (1 - share) * other).sum() / torch.where(total > 0, total, 1.0)
        summed = self._compared(logits, batch.labels, "sum")
        total = self._weighed(batch.labels).sum()
        return summed / torch.where(total > 0, total, 1.0)

    def _compared(self, logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
        """Return the cross-entropy with labels (N,), each times the weight of its class, 0 for an unlabelled image."""
        return F.cross_entropy(
            logits,
            labels,
            weight=self.weights if self.weights is None else self.weights.to(logits.dtype),
            ignore_index=UNLABELLED,
            label_smoothing=self.label_smoothing,
            reduction=reduction,
        )

    def _weighed(self, labels: Tensor) -> Tensor:
        """Return the weight of each label's class, (N,): 1 without class weights, 0 for an unlabelled image."""
        known = labels != UNLABELLED
        return known.float() if self.weights is None else self.weights[labels.clamp(min=0)] * known

    def formula(self) -> str:
        smoothing = [f"ε={self.label_smoothing:g}"] if self.label_smoothing else []
        settings = ", ".join([*smoothing, *(["balanced classes"] if self.balanced else [])])
        return f"CE(y, p_s; {settings})" if settings else "CE(y, p_s)"

    def formula_of_views(self) -> str:
        return f"[{self.formula()} of the weak view + of the strong view]"


def balanced(labels: Tensor, num_classes: int) -> Tensor:
    """Return N / (C·n_c) for each class, (num_classes,) float32; 0 for one without images.

    Of the labels (N,), −1 is none: N counts the labelled images, C the classes that have any.
    """
    counts = torch.bincount(labels[labels >= 0], minlength=num_classes).double()
    present = counts > 0
    return torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0.0).float()
