"""Knowledge review (Chen et al., "Distilling Knowledge via Knowledge Review", CVPR 2021)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdrun.data.batches import Batch
from kdrun.losses import layers
from kdrun.losses.base import Setting, at_least_float32, warm_up
from kdrun.models.base import Outputs

__all__ = ["ReviewKD"]

CONTEXTS = (4, 2, 1)
"""Sides that maps are pooled to, besides their own size; the weights are ½ for the first, and halve from each to the
next."""


def hierarchical_context(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Return the mean squared difference of maps at their own size and pooled to smaller ones, weighted, (N,).

    HCL of Chen et al. 2021, section 3.4, from (N, c, h, w) twice: [d + Σ_k 2^-k·d(pool_k)] / Σ weights over
    the sides 4, 2 and 1 that are below h.
    """
    sides = [side for side in CONTEXTS if side < min(f_s.shape[2:])]
    weights = [0.5**k for k in range(len(sides) + 1)]
    sizes = [(f_s, f_t), *((layers.pooled(f_s, (side, side)), layers.pooled(f_t, (side, side))) for side in sides)]
    distances = [weight * _mean_square(a - b) for weight, (a, b) in zip(weights, sizes, strict=True)]
    return sum(distances[1:], start=distances[0]) / sum(weights)


class Fusion(nn.Module):
    """ABF: a level of the student, fused with the deeper levels by learned gates.

    Chen et al. 2021, section 3.4: 1×1 convolution and BatchNorm to the common width; two gates between 0 and
    1 for each place, one for this level and one for the deeper ones; then 3×3 convolution and BatchNorm to
    the teacher's channels. The deepest level has nothing to fuse and no gates. Maps are resized by
    nearest-neighbour interpolation.
    """

    def __init__(self, from_: int, width: int, to: int, *, deepest: bool) -> None:
        super().__init__()
        narrow, widen = nn.Conv2d(from_, width, 1, bias=False), nn.Conv2d(width, to, 3, padding=1, bias=False)
        for convolution in (narrow, widen):
            nn.init.kaiming_uniform_(convolution.weight, a=1)  # as in the authors' code
        self.narrow = nn.Sequential(narrow, nn.BatchNorm2d(width))
        self.widen = nn.Sequential(widen, nn.BatchNorm2d(to))
        self.gates = None if deepest else nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid())

    def forward(self, f_s: Tensor, deeper: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Return the map to compare with the teacher's of `size` (h, w), and the map to fuse the next level with."""
        x = self.narrow(f_s)
        if self.gates is not None and deeper is not None:
            deeper = F.interpolate(deeper, x.shape[2:], mode="nearest")
            gates = self.gates(torch.cat([x, deeper], 1))
            x = x * gates[:, :1] + deeper * gates[:, 1:]
        if x.shape[2:] != size:
            x = F.interpolate(x, size, mode="nearest")
        return self.widen(x), x


class ReviewKD(layers.MapTerm):
    """min(epoch / warmup, 1)·Σ_l HCL(ABF_l(f_s), f_t): shallow teacher stages teach deep student stages too.

    The levels are the stages before their last ReLU and, as the deepest, the embedding as a 1×1 map. From
    deep to shallow each level of the student is fused with all deeper levels, and compared with the
    teacher's. Fused maps have as many channels as the student's embedding, at most `mid_channels`.
    `warmup_epochs` counts from 1, as mdistiller's code does: the first epoch has weight 1/warmup (the authors'
    own code counts from 0 and leaves the first epoch without the term); 0 is no warm-up.
    With `student_preactivation` off the student's maps are taken after the ReLU, the teacher's before it, as in the
    authors' code and mdistiller's for CIFAR; for ImageNet mdistiller takes both before it. Without `preactivation`
    both are taken after it. Raise ValueError if a number is out of range.
    """

    def __init__(
        self,
        warmup_epochs: int = 20,
        mid_channels: int = 512,
        preactivation: bool = True,
        student_preactivation: bool = False,
        student_layers: Sequence[str] | None = None,
        teacher_layers: Sequence[str] | None = None,
    ) -> None:
        super().__init__(student_layers, teacher_layers)
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs must be at least 0, got {warmup_epochs}; 0 is no warm-up")
        if mid_channels < 1:
            raise ValueError(f"mid_channels must be at least 1, got {mid_channels}")
        self.warmup_epochs, self.mid_channels = warmup_epochs, mid_channels
        self.preactivation, self.student_preactivation = preactivation, student_preactivation
        self.fusions = nn.ModuleList()

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        seen = student if self.student_preactivation else student._replace(preactivations=student.features)
        super().prepare(seen, teacher, setting)
        levels = self._levels(student, teacher)
        width = min(self.mid_channels, student.embedding.shape[1])
        self.fusions = nn.ModuleList(
            Fusion(f_s.shape[1], width, f_t.shape[1], deepest=i == 0) for i, (f_s, f_t) in enumerate(levels)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        deeper, losses = None, []
        for fusion, (f_s, f_t) in zip(self.fusions, self._levels(student, teacher), strict=True):
            fused, deeper = fusion(f_s, deeper, f_t.shape[2:])
            losses.append(hierarchical_context(fused, f_t).mean())
        total = sum(losses[1:], start=losses[0])
        return warm_up(batch.epoch, self.warmup_epochs) * total

    def formula(self) -> str:
        ramp = f"min(epoch/{self.warmup_epochs}, 1)·" if self.warmup_epochs else ""
        return ramp + "[Σ_l HCL(ABF_l(f_s), f_t)]"

    def _levels(self, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
        """Return the student's and the teacher's maps from deep to shallow, in at least float32."""
        maps_s = layers.maps(student, preactivation=self.preactivation and self.student_preactivation)
        maps_t = layers.maps(teacher, preactivation=self.preactivation)
        stages = [(maps_s[s], maps_t[t]) for s, t in reversed(self.pairs)]
        e_s, e_t = layers.vector("student", student), layers.vector("teacher", teacher)
        levels = [(e_s[:, :, None, None], e_t[:, :, None, None]), *stages]
        return [(at_least_float32(f_s), at_least_float32(f_t.detach())) for f_s, f_t in levels]


def _mean_square(difference: Tensor) -> Tensor:
    """Return the mean square of each sample, (N,) from (N, c, h, w)."""
    return difference.square().flatten(1).mean(1)
