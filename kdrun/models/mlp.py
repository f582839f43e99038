"""Multilayer perceptron on the flattened pixels."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from kdrun.models.base import Classifier, Outputs, positive, probability

__all__ = ["Mlp"]


class Mlp(Classifier):
    """Linear layers with ReLU; each hidden layer is a stage with a 1×1 map, so that losses on feature maps work too.

    hidden: width of each hidden layer; an empty list makes a linear classifier.
    dropout: rate after each hidden layer.
    """

    def __init__(
        self, num_classes: int, in_channels: int, image_size: tuple[int, int], hidden: list[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        if hidden:
            positive("hidden", hidden)
        probability("dropout", dropout)
        widths = [in_channels * prod(image_size), *hidden]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Outputs:
        features, preactivations = {}, {}
        x = embedding = images.flatten(1)
        for number, layer in enumerate(self.layers, start=1):
            preactivation = layer(x)
            embedding = F.relu(preactivation)
            features[f"stage{number}"] = embedding[:, :, None, None]
            preactivations[f"stage{number}"] = preactivation[:, :, None, None]
            x = self.dropout(embedding)
        return Outputs(self.classifier(x), features, preactivations, embedding)
