"""Which samples of a batch are right, on the batch's device; accuracy.py does the same for stored logits in numpy."""

from __future__ import annotations

from torch import Tensor


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return for each sample whether its largest logit is the label's: (N, C), (N,) -> (N,) bool.

    A sample with a NaN among its logits is never right: argmax returns the index of the NaN, which may be the label.
    Nothing is read back from the device.
    """
    chosen = logits.argmax(1)
    largest = logits.gather(1, chosen[:, None])[:, 0]
    return (chosen == labels) & ~largest.isnan()
