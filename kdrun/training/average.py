"""The exponential moving average of a network's weights, made without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

VERSION = 2  # stands in the spec as recipe.ema: which form of the average made the weights
MAX_DECAY = 0.998  # the decay of ema_decay=auto where the training is long enough
SPAN = 0.1  # the share of a training's steps that ema_decay=auto averages over at most


class Average(AveragedModel):
    """torch's average of weights and buffers, with a decay that grows from the first step on.

    At update t, counted from 0, the decay is min(decay, (1 + t) / (10 + t)) (as in Tensorflow's
    ExponentialMovingAverage with num_updates), so that the initial weights are soon forgotten: with 0.998 from the
    first step they would still count 17% after 900 steps. Buffers are averaged like weights; those that hold whole
    numbers, such as BatchNorm's count of batches, are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self.decay = decay

    def update_parameters(self, model: nn.Module) -> None:
        """Take in one more step of the network."""
        t = int(self.n_averaged)  # a tensor on the CPU
        decay = min(self.decay, (1 + t) / (10 + t))
        kept, seen = _values(self.module), _values(model)
        real = [i for i, average in enumerate(kept) if average.is_floating_point()]
        torch._foreach_lerp_([kept[i] for i in real], [seen[i] for i in real], 1 - decay)
        for average, value in zip(kept, seen, strict=True):
            if not average.is_floating_point():
                average.copy_(value)
        self.n_averaged += 1


def automatic_decay(steps: int) -> float | None:
    """Return the decay for a training of so many steps if nobody typed one; None if it is too short for an average.

    The average spans 1 / (1 - decay) steps: 500 at most, and at most a tenth of the training.
    """
    decay = min(MAX_DECAY, 1 - 1 / (SPAN * steps)) if steps else 0.0
    return round(decay, 6) if decay > 0 else None


def _values(network: nn.Module) -> list[Tensor]:
    return [value.detach() for value in (*network.parameters(), *network.buffers())]
