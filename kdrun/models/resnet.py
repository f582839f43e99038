"""ResNet for small images (He et al., CVPR 2016, section 4.2; wider variants of Tian et al., ICLR 2020)."""

from __future__ import annotations

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from kdrun.models.base import Classifier, Outputs, initialise, pooled, positive

__all__ = ["CifarResNet"]


class CifarResNet(Classifier):
    """ResNet with a 3×3 stem that keeps the resolution; every stage but the first halves it.

    Module names are those of the CRD code, so its published checkpoints of resnet8 … resnet32x4 load.

    blocks: residual blocks per stage; resnet20 is [3, 3, 3].
    stem_width: channels after the stem.
    widths: channels per stage, before the fourfold expansion of a bottleneck.
    bottleneck: 1×1, 3×3, 1×1 blocks as in ResNet50, instead of two 3×3 convolutions.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        blocks: list[int],
        stem_width: int,
        widths: list[int],
        bottleneck: bool = False,
    ) -> None:
        super().__init__()
        positive("blocks", blocks)
        positive("stem_width", stem_width)
        positive("widths", widths)
        if len(blocks) != len(widths):
            raise ValueError(f"blocks={blocks} and widths={widths}: both need one number per stage")
        block = Bottleneck if bottleneck else BasicBlock
        self.conv1 = nn.Conv2d(in_channels, stem_width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        channels, self.depth = stem_width, len(blocks)
        for number, (length, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            stage = nn.Sequential(block(channels, width, 1 if number == 1 else 2))
            channels = width * block.expansion
            stage.extend(block(channels, width, 1) for _ in range(length - 1))
            setattr(self, f"layer{number}", stage)
        self.fc = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Outputs:
        stem = self.bn1(self.conv1(images))
        x = F.relu(stem)
        features, preactivations = {"stem": x}, {"stem": stem}
        for number in range(1, self.depth + 1):
            *inner, last = getattr(self, f"layer{number}")
            for block in inner:
                x = F.relu(block(x), inplace=True)
            preactivation = last(x)
            x = F.relu(preactivation)  # not in place: both sides of a stage's last ReLU are returned
            features[f"stage{number}"], preactivations[f"stage{number}"] = x, preactivation
        embedding = pooled(x)
        return Outputs(self.fc(embedding), features, preactivations, embedding)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; returns their sum, before the ReLU."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = projection(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return out


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; returns their sum, before the ReLU."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return out


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Return a 1×1 convolution for a shortcut whose ends differ in shape; None if they agree."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
