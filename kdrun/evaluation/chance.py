"""Whether a network has learned anything: its accuracy against that of always predicting the largest class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.01  # significance level of being better than chance


def largest_share(labels: NDArray[np.integer]) -> float:
    """Return the share of the largest class among labels (N,); labels below 0 are unknown and left out."""
    known = labels[labels >= 0]
    return float(np.bincount(known).max() / len(known))


def better_than_chance(accuracy: float, labels: NDArray[np.integer]) -> bool:
    """Return whether an accuracy on images with these labels (N,) exceeds the share of the largest class.

    The test is a one-sided exact binomial test at 1%. Labels below 0 are unknown and left out.
    """
    from scipy.special import bdtrc  # scipy.stats takes half as long to import as torch

    count = int((labels >= 0).sum())
    return bool(bdtrc(round(accuracy * count) - 1, count, largest_share(labels)) < LEVEL)  # P(X >= correct answers)
