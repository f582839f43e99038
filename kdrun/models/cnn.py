"""Plain convolutional network, for students of another architecture than the teacher's."""

from __future__ import annotations

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from kdrun.models.base import Classifier, Outputs, initialise, pooled, positive, probability

__all__ = ["PlainCnn"]


class PlainCnn(Classifier):
    """Stages of 3×3 convolution, BatchNorm and ReLU, with 2×2 max pooling between stages.

    widths: channels per stage.
    convolutions: convolutions in each stage.
    dropout: rate before the classification layer.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        widths: list[int],
        convolutions: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        positive("widths", widths)
        positive("convolutions", convolutions)
        probability("dropout", dropout)
        if min(image_size) < (needed := 2 ** (len(widths) - 1)):
            size = "×".join(str(side) for side in image_size)
            raise ValueError(f"widths={widths}: these stages need images of at least {needed}×{needed}, not {size}")
        self.stages = nn.ModuleList()
        for width in widths:
            layers: list[nn.Module] = []
            for _ in range(convolutions):
                layers += [
                    nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                in_channels = width
            self.stages.append(nn.Sequential(*layers[:-1]))  # forward applies the last ReLU
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(in_channels, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Outputs:
        features, preactivations = {}, {}
        x = images
        for number, stage in enumerate(self.stages, start=1):
            preactivation = stage(x if number == 1 else F.max_pool2d(x, 2))
            x = F.relu(preactivation)
            features[f"stage{number}"], preactivations[f"stage{number}"] = x, preactivation
        embedding = pooled(x)
        return Outputs(self.classifier(self.dropout(embedding)), features, preactivations, embedding)
