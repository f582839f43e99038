"""How often a classifier is right, and how much probability it gives to what is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def correct(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Say for each sample whether the largest logit is the label's: (N, C), (N,) -> (N,).

    Of equal logits the first counts, as in numpy and torch. Raises ValueError where the shapes do not fit.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} are not (N, C) and (N,)")
    return np.asarray(logits.argmax(axis=1) == labels)


def accuracy(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Give the share of samples whose largest logit is the label's, in [0, 1]: (N, C), (N,) -> a number."""
    return float(correct(logits, labels).mean())


def nll(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Give the mean negative log-likelihood of the labels in nats: (N, C), (N,) -> a number of at least 0.

    Computed from log-probabilities in float64, so that a confident mistake stays a large finite number.
    Raises ValueError where the shapes do not fit or a label names no class.
    """
    from scipy.special import log_softmax

    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} are not (N, C) and (N,)")
    if labels.size and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} do not name one of {logits.shape[1]} classes")
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    return float(-log_p[np.arange(len(labels)), labels].mean())
