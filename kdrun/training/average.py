"""The exponential moving average of a network's weights, made without waiting for the device."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average(AveragedModel):
    """torch's average of weights and buffers, the same values and the same state, without its wait.

    torch's own update sends its count of updates to the device, and waits for that at every step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]

    def update_parameters(self, model: nn.Module) -> None:
        """Take in one more step of the network; the first is copied."""
        assert self.multi_avg_fn is not None
        kept, seen = _values(self.module), _values(model)
        if self.n_averaged == 0:  # a tensor on the CPU
            for average, value in zip(kept, seen, strict=True):
                average.copy_(value)
        else:  # whole numbers apart, as torch has it: BatchNorm counts its batches
            for whole in (False, True):
                chosen = [i for i, average in enumerate(kept) if average.is_floating_point() is not whole]
                if chosen:
                    self.multi_avg_fn([kept[i] for i in chosen], [seen[i] for i in chosen], self.n_averaged)
        self.n_averaged += 1


def _values(network: nn.Module) -> list[Tensor]:
    return [value.detach() for value in (*network.parameters(), *network.buffers())]
