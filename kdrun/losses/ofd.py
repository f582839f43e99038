"""Overhauled feature distillation (Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdrun.data.batches import Batch
from kdrun.losses import layers
from kdrun.losses.base import Setting, at_least_float32
from kdrun.models.base import Outputs

__all__ = ["OFD"]


def margin_relu(f_t: Tensor, margin: Tensor) -> Tensor:
    """Return max(f_t, m), the teacher's transform, (N, c, h, w), with a margin m ≤ 0 for each channel, (c,).

    Heo et al. 2019, section 3, teacher transform: if a response is negative, the student's needs to be negative
    too, but not below m.
    """
    return torch.maximum(f_t, margin[:, None, None])


def partial_l2(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the sum of squared differences of each sample, without those with student ≤ teacher ≤ 0, (N,).

    Heo et al. 2019, section 3, distance function d_p, from (N, c, h, w) twice: the ReLU after both
    maps turns two such responses into 0.
    """
    counts = (predicted > target) | (target > 0)
    return ((predicted - target).square() * counts).flatten(1).sum(1)


class Margin(nn.Module):
    """E[f | f < 0] of each channel of the teacher, (c,): the mean of the negative responses seen so far.

    The paper allows it to be computed in training, or from the preceding BatchNorm's parameters, as its code does.
    A term sees only the outputs of networks, so it is computed here in training, over all batches so far. It depends
    on these batches alone, hardly changes after about an epoch, and is saved in the checkpoint. Both ways agree if the
    ReLU follows a BatchNorm; if it follows the sum of a block and its shortcut, the mean computed here is the
    expectation that the paper defines. A channel that was never negative has margin 0, which changes nothing.
    """

    value: Tensor
    count: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(channels))
        self.register_buffer("count", torch.zeros(channels))

    def forward(self, f_t: Tensor) -> Tensor:
        """Return the margins, (c,); in training the teacher's responses, (N, c, h, w), are counted first."""
        if self.training:
            self.observe(f_t)
        return self.value

    @torch.no_grad()
    def observe(self, f_t: Tensor) -> None:
        """Add a batch of the teacher's responses, (N, c, h, w), to the mean."""
        negative = (f_t < 0).sum((0, 2, 3))
        self.count += negative
        self.value += (f_t.clamp(max=0).sum((0, 2, 3)) - negative * self.value) / self.count.clamp(min=1)


class OFD(layers.MapTerm):
    """Σ_l 2^(l−L)·d_p(r(f_s), max(f_t, m)) over the stages l = 1 … L, before their last ReLU.

    r is a 1×1 convolution with BatchNorm. Each distance is summed over channels and places and averaged over
    the batch; the published weight of 1e-3 multiplies that. Maps of different sizes, which the paper's networks do not
    have, are compared at the smaller size; mdistiller's code pools the teacher's. The paper runs the
    teacher's BatchNorm in training mode; here a teacher is in eval mode, as in mdistiller's code, so that its
    outputs for an image do not depend on the batch.
    """

    def __init__(
        self,
        preactivation: bool = True,
        student_layers: Sequence[str] | None = None,
        teacher_layers: Sequence[str] | None = None,
    ) -> None:
        super().__init__(student_layers, teacher_layers)
        self.preactivation = preactivation
        self.connectors = nn.ModuleList()
        self.margins = nn.ModuleList()

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        super().prepare(student, teacher, setting)
        channels = [(f_s.shape[1], f_t.shape[1]) for f_s, f_t in self.maps(student, teacher)]
        self.connectors = nn.ModuleList(connector(from_, to) for from_, to in channels)
        self.margins = nn.ModuleList(Margin(to) for _, to in channels)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        stages: list[Tensor] = []
        for maps, connect, margin in zip(self.maps(student, teacher), self.connectors, self.margins, strict=True):
            m = margin(at_least_float32(maps[1]))
            f_s, f_t = layers.alike(*maps)
            stages.append(partial_l2(connect(f_s), margin_relu(f_t, m)).mean())
        halved = [stage * 0.5 ** (len(stages) - 1 - i) for i, stage in enumerate(stages)]
        return sum(halved[1:], start=halved[0])

    def formula(self) -> str:
        return "[Σ_l 2^(l−L)·d_p(r(f_s), max(f_t, m))]"


def connector(from_: int, to: int) -> nn.Sequential:
    """Return the student's transform: a 1×1 convolution to the teacher's channels and BatchNorm."""
    convolution = nn.Conv2d(from_, to, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")  # as in the authors' code
    return nn.Sequential(convolution, nn.BatchNorm2d(to))
