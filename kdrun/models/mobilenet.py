"""MobileNetV2 (Sandler et al., CVPR 2018), in the arrangement of the CIFAR distillation papers."""

from __future__ import annotations

import torch.nn as nn
from torch import Tensor

from kdrun.models.base import Classifier, Outputs, initialise, pooled, positive

__all__ = ["MobileNetV2"]

# (expanded, channels at width 1, blocks, stride, name of the stage that ends here)
ARRANGEMENT = (
    (False, 16, 1, 1, None),
    (True, 24, 2, 1, "stage1"),
    (True, 32, 3, 2, "stage2"),
    (True, 64, 4, 2, None),
    (True, 96, 3, 1, "stage3"),
    (True, 160, 3, 2, None),
    (True, 320, 1, 1, "stage4"),
)


class MobileNetV2(Classifier):
    """Inverted residuals with linear bottlenecks.

    A stage ends in a linear bottleneck, without ReLU: `features` and `preactivations` are the same maps.

    width: multiple of the published channel numbers.
    expansion: channels inside a block, as a multiple of its input's.
    """

    def __init__(self, num_classes: int, in_channels: int, width: float = 0.5, expansion: int = 6) -> None:
        super().__init__()
        positive("expansion", expansion)
        if not 1 / 16 <= width <= 16:
            raise ValueError(f"width={width}: must lie between 1/16 and 16")
        channels = int(32 * width)
        self.stem = nn.Sequential(*convolution(in_channels, channels, 3, stride=2), nn.ReLU(inplace=True))
        self.groups = nn.ModuleList()
        for expanded, full_width, length, stride, _ in ARRANGEMENT:
            out_channels, factor = int(full_width * width), expansion if expanded else 1
            group = nn.Sequential(InvertedResidual(channels, out_channels, stride, factor))
            group.extend(InvertedResidual(out_channels, out_channels, 1, factor) for _ in range(length - 1))
            self.groups.append(group)
            channels = out_channels
        head = max(1280, int(1280 * width))
        self.head = nn.Sequential(*convolution(channels, head, 1), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(head, num_classes)
        initialise(self, linear_std=0.01)

    def forward(self, images: Tensor) -> Outputs:
        x = self.stem(images)
        features = {}
        for group, (*_, name) in zip(self.groups, ARRANGEMENT, strict=True):
            x = group(x)
            if name is not None:
                features[name] = x
        embedding = pooled(self.head(x))
        return Outputs(self.classifier(embedding), features, dict(features), embedding)


class InvertedResidual(nn.Module):
    """Expand (1×1), filter each channel (3×3), project back without ReLU (1×1)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.shortcut = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            *convolution(in_channels, inner, 1),
            nn.ReLU(inplace=True),
            *convolution(inner, inner, 3, stride=stride, groups=inner),
            nn.ReLU(inplace=True),
            *convolution(inner, out_channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.shortcut else out


def convolution(in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution that keeps the resolution except for its stride, and BatchNorm."""
    return [
        nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
