"""ShuffleNet V1 (Zhang et al., CVPR 2018) and V2 (Ma et al., ECCV 2018), as the CIFAR papers arrange them.

The stem is a 1×1 convolution that keeps the resolution, and each of the three stages halves it. Weights
start from torch's defaults, as in the published code.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from kdrun.models.base import Classifier, Outputs, pooled, positive

__all__ = ["ShuffleNetV1", "ShuffleNetV2"]

STEM_WIDTH = 24


class ShuffleNet(Classifier):
    """The forward pass of both versions: a stem, stages of blocks without their last ReLU, and perhaps a head."""

    stem: nn.Sequential
    stages: nn.ModuleList
    head: nn.Sequential | None
    classifier: nn.Linear

    def forward(self, images: Tensor) -> Outputs:
        features, preactivations = {}, {}
        x = self.stem(images)
        for number, stage in enumerate(self.stages, start=1):
            for block in stage:  # type: ignore[attr-defined]
                preactivation = block(x)
                x = F.relu(preactivation)
            features[f"stage{number}"], preactivations[f"stage{number}"] = x, preactivation
        embedding = pooled(x if self.head is None else self.head(x))
        return Outputs(self.classifier(embedding), features, preactivations, embedding)


class ShuffleNetV1(ShuffleNet):
    """Grouped 1×1 convolutions whose channels are shuffled in between.

    widths: channels of each stage.
    blocks: blocks of each stage, the one that halves the resolution included.
    groups: groups of the 1×1 convolutions.
    """

    def __init__(
        self, num_classes: int, in_channels: int, widths: list[int], blocks: list[int], groups: int = 3
    ) -> None:
        super().__init__()
        check_stages(widths, blocks)
        positive("groups", groups)
        self.stem = stem(in_channels)
        self.stages = nn.ModuleList()
        channels = STEM_WIDTH
        for number, (width, length) in enumerate(zip(widths, blocks, strict=True), start=1):
            added = width - channels  # the halving block concatenates these with its pooled input
            if added < 4 or any(size % groups for size in (width, width // 4, added, added // 4)):
                raise ValueError(
                    f"widths={widths}, groups={groups}: the channels of stage {number} are not divisible by groups"
                )
            # The stem's few channels are not grouped.
            first_groups = 1 if number == 1 else groups
            stage = nn.Sequential(GroupedBlock(channels, added, 2, first_groups, groups))
            stage.extend(GroupedBlock(width, width, 1, groups, groups) for _ in range(length - 1))
            self.stages.append(stage)
            channels = width
        self.head = None
        self.classifier = nn.Linear(channels, num_classes)


class GroupedBlock(nn.Module):
    """Bottleneck of grouped 1×1, depthwise 3×3 and grouped 1×1 convolutions; returns the sum before the ReLU.

    With stride 2 the pooled input is concatenated instead of added.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, first_groups: int, groups: int) -> None:
        super().__init__()
        inner = out_channels // 4
        self.stride, self.first_groups = stride, first_groups
        self.reduce = nn.Conv2d(in_channels, inner, 1, groups=first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.filter = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.restore = nn.Conv2d(inner, out_channels, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = shuffled(F.relu(self.bn1(self.reduce(x)), inplace=True), self.first_groups)
        # The ReLU after the depthwise convolution is the CIFAR code's; the paper has none there.
        out = F.relu(self.bn2(self.filter(out)), inplace=True)
        out = self.bn3(self.restore(out))
        if self.stride == 2:
            return torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], 1)
        out += x
        return out


class ShuffleNetV2(ShuffleNet):
    """Half of the channels pass through a block unchanged, then both halves are shuffled.

    Pre-activations are shuffled like the features, so that channels correspond; the unchanged half comes
    from an earlier ReLU and is the same in both.

    widths: channels of each stage.
    blocks: blocks of each stage, the one that halves the resolution included.
    head_width: channels of the 1×1 convolution before pooling.
    """

    def __init__(
        self, num_classes: int, in_channels: int, widths: list[int], blocks: list[int], head_width: int = 1024
    ) -> None:
        super().__init__()
        check_stages(widths, blocks)
        positive("head_width", head_width)
        if any(width % 2 for width in widths):
            raise ValueError(f"widths={widths}: needs even numbers, since blocks halve the channels")
        self.stem = stem(in_channels)
        self.stages = nn.ModuleList()
        channels = STEM_WIDTH
        for width, length in zip(widths, blocks, strict=True):
            stage = nn.Sequential(HalvingBlock(channels, width // 2))
            stage.extend(SplitBlock(width // 2) for _ in range(length - 1))
            self.stages.append(stage)
            channels = width
        self.head = nn.Sequential(
            nn.Conv2d(channels, head_width, 1, bias=False), nn.BatchNorm2d(head_width), nn.ReLU(inplace=True)
        )
        self.classifier = nn.Linear(head_width, num_classes)


class SplitBlock(nn.Module):
    """Transforms the second half of the channels (each `width` wide); returns before the last ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = bottleneck(width, width, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        return shuffled(torch.cat([kept, self.layers(changed)], 1), 2)


class HalvingBlock(nn.Module):
    """Both branches see all channels and halve the resolution; returns before the last ReLU."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.left = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, 2, padding=1, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.right = bottleneck(in_channels, width, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return shuffled(torch.cat([self.left(x), self.right(x)], 1), 2)


def bottleneck(in_channels: int, width: int, stride: int) -> nn.Sequential:
    """Return 1×1, depthwise 3×3 and 1×1 convolutions, up to the last BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
    )


def stem(in_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, STEM_WIDTH, 1, bias=False), nn.BatchNorm2d(STEM_WIDTH), nn.ReLU(inplace=True)
    )


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Return the channels of (N, c, h, w) shuffled, so that the groups' channels alternate."""
    # Channels last, so that one copy is enough and the memory format of the images is kept.
    n, c, h, w = x.shape
    split = x.permute(0, 2, 3, 1).reshape(n, h, w, groups, c // groups)
    return split.transpose(3, 4).reshape(n, h, w, c).permute(0, 3, 1, 2)


def check_stages(widths: list[int], blocks: list[int]) -> None:
    positive("widths", widths)
    positive("blocks", blocks)
    if len(widths) != len(blocks):
        raise ValueError(f"widths={widths} and blocks={blocks}: both need one number per stage")
