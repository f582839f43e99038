"""How often a classifier is right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def correct(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Say for each sample whether the largest logit is the label's: (N, C), (N,) -> (N,)."""
    return np.asarray(logits.argmax(axis=1) == labels)


def accuracy(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Give the share of samples whose largest logit is the label's, in [0, 1]."""
    return float(correct(logits, labels).mean())
