"""Accuracy per class, the confusion matrix, and measures derived from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation.accuracy import NO_ANSWER, answers, correct


def top_k(logits: NDArray[np.floating], labels: NDArray[np.integer], k: int = 5) -> float:
    """Return the share of samples whose label is among the k largest logits, in [0, 1]: (N, C), (N,) -> a number.

    Ties go to the lowest index, as in `correct`. NaN if there are no more than k classes: every sample would be
    right. Raise ValueError if the shapes do not fit.
    """
    correct(logits, labels)
    if logits.shape[1] <= k:
        return float("nan")
    own = logits[np.arange(len(labels)), labels][:, None]
    before = np.arange(logits.shape[1])[None] < labels[:, None]
    better = (logits > own) | ((logits == own) & before)
    return float(((better.sum(axis=1) < k) & (answers(logits) != NO_ANSWER)).mean())


def confusion(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the confusion matrix: (N, C), (N,) -> (C, C), a row per true class, a column per predicted class.

    A sample with NaN logits is wrong: it counts as a prediction of the class after its label.
    """
    correct(logits, labels)
    classes, labels, chosen = logits.shape[1], labels.astype(np.int64), answers(logits)
    pairs = labels * classes + np.where(chosen == NO_ANSWER, (labels + 1) % classes, chosen)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def per_class(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return every class's accuracy (its recall) from a confusion matrix: (C, C) -> (C,), NaN if it has no sample."""
    samples = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(samples > 0, np.diag(counts) / samples, np.nan)


def balanced_accuracy(counts: NDArray[np.int64]) -> float:
    """Return the unweighted mean accuracy over the classes that have samples: (C, C) -> [0, 1]."""
    return float(np.nanmean(per_class(counts)))


def macro_f1(counts: NDArray[np.int64]) -> float:
    """Return the mean of 2·TP / (2·TP + FP + FN) over the classes with samples or predictions: (C, C) -> [0, 1]."""
    right = np.diag(counts)
    total = counts.sum(axis=0) + counts.sum(axis=1)  # 2·TP + FP + FN
    return float((2 * right[total > 0] / total[total > 0]).mean())
