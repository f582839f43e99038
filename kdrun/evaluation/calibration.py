"""Calibration: whether a classifier's accuracy is as high as its confidence (Guo et al., ICML 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation.accuracy import NO_ANSWER, answers, correct

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Samples binned by confidence (the probability of the predicted class), in bins of equal width.

    Per bin: the number of samples, their mean confidence and their accuracy (NaN if the bin is empty).
    """

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean of |accuracy − confidence| over samples, bin by bin (equation 3)."""
        filled = self.count > 0
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((gaps * self.count[filled]).sum() / self.count.sum())


def reliability(logits: NDArray[np.floating], labels: NDArray[np.integer], bins: int = BINS) -> Reliability:
    """Return the bins of samples by confidence at T=1: (N, C), (N,); a sample on a border belongs to the upper bin.

    A sample with NaN logits has no confidence and is in no bin. Raise ValueError if the shapes do not fit.
    """
    from scipy.special import softmax

    right = correct(logits, labels)
    known = answers(logits) != NO_ANSWER
    logits, right = logits[known], right[known]
    confidence = softmax(logits.astype(np.float64), axis=1).max(axis=1)
    chosen = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(chosen, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            count,
            np.bincount(chosen, weights=confidence, minlength=bins) / count,
            np.bincount(chosen, weights=right, minlength=bins) / count,
        )


def pooled(parts: list[Reliability]) -> Reliability:
    """Merge the bins of several networks, for a picture over all seeds."""
    count = np.sum([part.count for part in parts], axis=0)
    with np.errstate(invalid="ignore"):
        confidence = np.nansum([part.confidence * part.count for part in parts], axis=0) / count
        accuracy = np.nansum([part.accuracy * part.count for part in parts], axis=0) / count
    return Reliability(count, confidence, accuracy)
