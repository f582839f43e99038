"""A network that was trained with another normalisation than that of the images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdrun.models.base import Classifier, Outputs

Moments = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of pixels in [0, 1], each per channel."""


class Renormalised(Classifier):
    """Undoes the normalisation of the images, applies the network's own, and returns the network's outputs."""

    def __init__(self, network: nn.Module, images: Moments, own: Moments) -> None:
        super().__init__()
        self.network = network
        (mean, std), (own_mean, own_std) = (torch.tensor(moments, dtype=torch.float32) for moments in (images, own))
        # (x·std + mean − own mean) / own std in one multiplication and one addition
        self.scale = nn.Buffer((std / own_std).view(1, -1, 1, 1), persistent=False)
        self.shift = nn.Buffer(((mean - own_mean) / own_std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Outputs:
        """Return the outputs for images, (N, C, H, W), normalised as the data set's are."""
        outputs: Outputs = self.network(images * self.scale + self.shift)
        return outputs
