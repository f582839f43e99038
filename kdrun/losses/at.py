"""Attention transfer (Zagoruyko & Komodakis, "Paying More Attention to Attention", ICLR 2017)."""

import warnings
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses import layers
from kdrun.losses.base import Setting
from kdrun.models.base import Outputs

__all__ = ["AT"]


def attention(f: Tensor, p: int) -> Tensor:
    """Return the attention map Q: mean_c |f|^p, flattened, of Euclidean length 1, (N, h·w) from (N, c, h, w).

    F_sum^p of section 3.1; the mean instead of the sum makes no difference after normalisation. A map of
    zeros gives zeros, with gradients of zero.
    """
    return F.normalize(f.abs().pow(p).mean(1).flatten(1), eps=1e-12)


def attention_distance(f_s: Tensor, f_t: Tensor, p: int) -> Tensor:
    """Return the mean squared difference of two attention maps, (N,), from (N, c_s, h, w) and (N, c_t, h, w).

    Zagoruyko & Komodakis 2017, Eq. 2, whose norm the authors' code replaces by this mean; the published
    weight of 1000 goes with it.
    """
    return (attention(f_s, p) - attention(f_t, p)).square().mean(1)


class AT(layers.MapTerm):
    """Σ_l MSE(Q_s, Q_t): in every stage the student's maps are to be active where the teacher's are.

    Maps of different sizes are compared at the smaller size: the larger is pooled before its attention is
    taken, as in CRD's code (RepDistiller, Attention). p above 2 stresses the most active places. A 1×1 map,
    such as a multilayer perceptron's, has one place only, so its stage is always 0.
    Raise ValueError if p is below 1.
    """

    def __init__(
        self, p: int = 2, student_layers: Sequence[str] | None = None, teacher_layers: Sequence[str] | None = None
    ) -> None:
        super().__init__(student_layers, teacher_layers)
        if p < 1:
            raise ValueError(f"p must be a whole number of at least 1, got {p}; 2 is usual")
        self.p = p

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        super().prepare(student, teacher, setting)
        sizes = [layers.alike(f_s, f_t)[0].shape[2:] for f_s, f_t in self.maps(student, teacher)]
        if all(size.numel() == 1 for size in sizes):
            warnings.warn(
                "at has only 1×1 maps to compare, which carry no spatial attention; choose "
                "convolutional networks, or another loss",
                stacklevel=2,
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        stages = [
            attention_distance(*layers.alike(f_s, f_t), self.p).mean() for f_s, f_t in self.maps(student, teacher)
        ]
        return sum(stages[1:], start=stages[0])

    def formula(self) -> str:
        return f"[Σ_l MSE(Q_s, Q_t; p={self.p})]"
