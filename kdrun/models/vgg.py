"""VGG with BatchNorm for small images (Simonyan & Zisserman, ICLR 2015; vgg8 of Tian et al., ICLR 2020)."""

from __future__ import annotations

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from kdrun.models.base import Classifier, Outputs, initialise, pooled, positive

__all__ = ["Vgg"]


class Vgg(Classifier):
    """Five stages of 3×3 convolutions, with pooling between them, and one linear layer.

    The pool before the last stage is left out on small maps, as in the CRD code for 32×32 images: it is
    applied if the map is at least 8×8 (64×64 images). Module names are CRD's, so its checkpoints load.

    convolutions: number of convolutions in each stage; vgg13 is [2, 2, 2, 2, 2].
    widths: channels of each stage.
    """

    smallest_image = 8

    def __init__(self, num_classes: int, in_channels: int, convolutions: list[int], widths: list[int]) -> None:
        super().__init__()
        positive("convolutions", convolutions)
        positive("widths", widths)
        if len(convolutions) != 5 or len(widths) != 5:
            raise ValueError(f"convolutions={convolutions} and widths={widths}: VGG has five stages")
        for number, (length, width) in enumerate(zip(convolutions, widths, strict=True)):
            layers: list[nn.Module] = []
            for _ in range(length):
                layers += [nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                in_channels = width
            setattr(self, f"block{number}", nn.Sequential(*layers[:-1]))  # forward applies the last ReLU
        self.classifier = nn.Linear(in_channels, num_classes)
        initialise(self, linear_std=0.01)

    def forward(self, images: Tensor) -> Outputs:
        features, preactivations = {}, {}
        x = images
        for number in range(1, 6):
            if number in (2, 3, 4) or (number == 5 and min(x.shape[-2:]) >= 8):
                x = F.max_pool2d(x, 2)
            preactivation = getattr(self, f"block{number - 1}")(x)
            x = F.relu(preactivation)
            features[f"stage{number}"], preactivations[f"stage{number}"] = x, preactivation
        embedding = pooled(x)
        return Outputs(self.classifier(embedding), features, preactivations, embedding)
