"""Which samples of a batch are right, on the batch's device; stored logits are counted in numpy, in accuracy.py."""

from __future__ import annotations

from torch import Tensor


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return for each sample whether its largest logit is the label's: (N, C), (N,) -> (N,) bool.

    Never of a sample with a NaN among its logits: argmax gives the place of the NaN, which can be the label's.
    Nothing is read back from the device.
    """
    chosen = logits.argmax(1)
    largest = logits.gather(1, chosen[:, None])[:, 0]
    return (chosen == labels) & ~largest.isnan()
