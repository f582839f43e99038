"""The exponential moving average of a network's weights, computed without host synchronisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

VERSION = 2  # recipe.ema in the spec: version of the averaging formula
MAX_DECAY = 0.998  # the decay of ema_decay=auto if the training is long enough
SPAN = 0.1  # ema_decay=auto averages over this share of the steps at most


class Average(AveragedModel):
    """torch's average of weights and buffers, with a decay that grows during the first steps.

    At update t, counted from 0, the decay is min(decay, (1 + t) / (10 + t)) (as in TensorFlow's
    ExponentialMovingAverage with num_updates). With 0.998 from the first step, the initial weights would still
    count 17% after 900 steps. Buffers are averaged like weights; integer buffers, such as BatchNorm's count of
    batches, are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self.decay = decay

    def update_parameters(self, model: nn.Module) -> None:
        """Update the average with the network's weights after one more step."""
        t = int(self.n_averaged)  # a tensor on the CPU
        decay = min(self.decay, (1 + t) / (10 + t))
        averages, values = _values(self.module), _values(model)
        floats = [i for i, average in enumerate(averages) if average.is_floating_point()]
        torch._foreach_lerp_([averages[i] for i in floats], [values[i] for i in floats], 1 - decay)
        for average, value in zip(averages, values, strict=True):
            if not average.is_floating_point():
                average.copy_(value)
        self.n_averaged += 1


def automatic_decay(steps: int) -> float | None:
    """Return the decay of ema_decay=auto for a training of `steps` steps, None if it is too short for an average.

    The average spans 1 / (1 - decay) steps: at most 500, and at most a tenth of the training.
    """
    decay = min(MAX_DECAY, 1 - 1 / (SPAN * steps)) if steps else 0.0
    return round(decay, 6) if decay > 0 else None


def _values(network: nn.Module) -> list[Tensor]:
    return [value.detach() for value in (*network.parameters(), *network.buffers())]
