"""Cross-entropy with the labels: the hard term, and all that a baseline minimises."""

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from kdrun.losses.base import Term, at_least_float32

if TYPE_CHECKING:
    from kdrun.data.batches import Batch
    from kdrun.models.base import Outputs

__all__ = ["CE"]

UNLABELLED = -1


class CE(Term):
    """CE(y, p_s): cross-entropy of the student at T=1 with the labels, (N, C) against (N,).

    Averaged over the labelled samples of the batch, so that unlabelled ones (−1) neither count nor dilute;
    0 when none is labelled. `label_smoothing` is the share ε of a label that is spread over all classes
    (Szegedy et al. 2016). Raises ValueError when that is outside [0, 1].
    """

    needs_teacher = False
    needs_labels = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}; 0.1 is usual")
        self.label_smoothing = float(label_smoothing)

    def forward(self, student: "Outputs", teacher: "Outputs | None", batch: "Batch") -> Tensor:
        logits = at_least_float32(student.logits)
        summed = F.cross_entropy(
            logits,
            batch.labels,
            ignore_index=UNLABELLED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        labelled: Tensor = (batch.labels != UNLABELLED).sum()
        return summed / labelled.clamp(min=1)

    def formula(self) -> str:
        return f"CE(y, p_s; ε={self.label_smoothing:g})" if self.label_smoothing else "CE(y, p_s)"
