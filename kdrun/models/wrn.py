"""Wide residual networks (Zagoruyko & Komodakis, BMVC 2016)."""

from __future__ import annotations

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from kdrun.models.base import Classifier, Outputs, initialise, pooled, positive, probability

__all__ = ["WideResNet"]


class WideResNet(Classifier):
    """Three stages of pre-activation blocks; WRN-d-k has depth d and k times ResNet's channels.

    A stage of this architecture ends in a sum that no ReLU follows. As in the CRD code, `features` hold
    that sum and `preactivations` the BatchNorm that comes next, just before its ReLU (the next stage's
    first, or the last of the network). Module names are CRD's, so its published checkpoints load.

    depth: 6n + 4, for n blocks per stage.
    widen_factor: multiple of the 16, 32 and 64 channels.
    dropout: rate between the two convolutions of a block.
    """

    def __init__(self, num_classes: int, in_channels: int, depth: int, widen_factor: int, dropout: float = 0.0) -> None:
        super().__init__()
        positive("widen_factor", widen_factor)
        probability("dropout", dropout)
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth={depth}: a wide ResNet has 6n + 4 layers, such as 10, 16, 22, 28 or 40")
        length, channels = (depth - 4) // 6, 16
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        stages = []
        for width, stride in zip((16, 32, 64), (1, 2, 2), strict=True):
            stages.append(Stage(length, channels, width * widen_factor, stride, dropout))
            channels = width * widen_factor
        self.block1, self.block2, self.block3 = stages
        self.bn1 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)
        initialise(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Outputs:
        x = self.conv1(images)
        normalised = self.block1.first_norm(x)
        features, preactivations = {}, {}
        stages = (self.block1, self.block2, self.block3)
        following = (self.block2.first_norm, self.block3.first_norm, self.bn1)
        for number, (stage, norm) in enumerate(zip(stages, following, strict=True), start=1):
            x = stage(x, F.relu(normalised))
            # The next stage uses this result too: a second call would update the running statistics twice.
            normalised = norm(x)
            features[f"stage{number}"], preactivations[f"stage{number}"] = x, normalised
        embedding = pooled(F.relu(normalised))
        return Outputs(self.fc(embedding), features, preactivations, embedding)


class Stage(nn.Module):
    """Blocks of one resolution; the first norm and ReLU are applied by the caller, which returns them as outputs."""

    def __init__(self, length: int, in_channels: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.Sequential(Block(in_channels, width, stride, dropout))
        self.layer.extend(Block(width, width, 1, dropout) for _ in range(length - 1))

    @property
    def first_norm(self) -> nn.Module:
        first: Block = self.layer[0]  # type: ignore[assignment]
        return first.bn1

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        first, *others = self.layer
        x = first(x, activated)
        for block in others:
            x = block(x, F.relu(block.bn1(x), inplace=True))  # type: ignore[operator]
        return x


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut; `activated` is relu(bn1(x))."""

    def __init__(self, in_channels: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        # If the shape changes, the shortcut is a convolution of the activated input, as published.
        same = in_channels == width and stride == 1
        self.convShortcut = None if same else nn.Conv2d(in_channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        out: Tensor = F.relu(self.bn2(self.conv1(activated)), inplace=True)
        out = self.conv2(self.dropout(out))
        out += x if self.convShortcut is None else self.convShortcut(activated)
        return out
