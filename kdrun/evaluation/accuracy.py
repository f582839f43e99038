"""A classifier's accuracy, and the log-likelihood of the labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NO_ANSWER = -1


def answers(logits: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the predicted class of each sample, the index of its largest logit: (N, C) -> (N,).

    Ties go to the lowest index, as in numpy and torch. A sample with a NaN among its logits has no prediction
    (NO_ANSWER): argmax would return the index of the NaN, which may be the label.
    """
    chosen = logits.argmax(axis=1).astype(np.int64)  # the index of a NaN, if there is one
    largest = np.take_along_axis(logits, chosen[:, None], axis=1)[:, 0]
    return np.where(np.isnan(largest), NO_ANSWER, chosen)


def correct(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return for each sample whether the prediction is the label: (N, C), (N,) -> (N,); NO_ANSWER is never right.

    Raise ValueError if the shapes do not fit.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} are not (N, C) and (N,)")
    chosen = answers(logits)
    return np.asarray((chosen == labels) & (chosen != NO_ANSWER))


def accuracy(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the share of samples whose largest logit is the label's, in [0, 1]: (N, C), (N,) -> a number."""
    return float(correct(logits, labels).mean())


def nll(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the mean negative log-likelihood of the labels in nats: (N, C), (N,) -> a number of at least 0.

    Computed from log-probabilities in float64, so that a confident mistake gives a large finite number.
    Raise ValueError if the shapes do not fit or a label is no class.
    """
    from scipy.special import log_softmax

    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} are not (N, C) and (N,)")
    if labels.size and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} do not name one of {logits.shape[1]} classes")
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    return float(-log_p[np.arange(len(labels)), labels].mean())
