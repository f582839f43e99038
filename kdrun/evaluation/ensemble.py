"""Ensembles of networks: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def mixture(logits: Sequence[NDArray[np.floating]], weights: Sequence[float]) -> NDArray[np.float64]:
    """Return log Σ w_k softmax(z_k) at T=1: K arrays (N, C) and K weights -> (N, C) log-probabilities.

    The result can be used as logits. The weights are normalised by their sum. Computed from log-probabilities in
    float64, so that the logarithm of a probability near 0 stays finite. Raise ValueError if the shapes differ, or if
    the weights are not K numbers of at least 0 with a sum above 0.
    """
    from scipy.special import log_softmax

    shapes = sorted({z.shape for z in logits})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ValueError(f"logits {', '.join(map(str, shapes))} are not of the same samples and classes (N, C)")
    if len(weights) != len(logits) or min(weights) < 0 or not sum(weights) > 0:
        raise ValueError(f"weights {list(weights)} are not {len(logits)} shares of at least 0 with a sum above 0")
    total: NDArray[np.float64] | None = None
    for z, weight in zip(logits, weights, strict=True):
        if weight:
            part = log_softmax(z.astype(np.float64), axis=1) + np.log(weight / sum(weights))
            total = part if total is None else np.logaddexp(total, part)
    assert total is not None
    return total
