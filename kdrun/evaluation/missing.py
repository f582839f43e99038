"""How much a network knows of classes that it never saw: its accuracy after correcting one bias.

A class that is missing from the labels gets far too low a bias. Hinton, Vinyals & Dean (arXiv:1503.02531, section 3)
raise it by the offset that is best on data that include the class; here these are the validation data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation.accuracy import NO_ANSWER, answers, correct

ROUNDING = 1e-9  # logits closer than this are equal


def best_offset(logits: NDArray[np.floating], labels: NDArray[np.integer], omitted: Sequence[int]) -> float:
    """Return the offset for the logits of omitted classes that maximises the accuracy: (N, C), (N,) -> a number.

    The search is exact: the accuracy changes only at offsets where an omitted class overtakes a sample's best other
    class, so it tries one offset between each two neighbouring ones, one beyond either end, and 0. Of equally good
    offsets it returns the nearest to 0. Raise ValueError if the shapes do not fit, or if no class or every class is
    omitted.
    """
    others = [c for c in range(logits.shape[-1]) if c not in omitted]
    if not omitted or not others or min(omitted) < 0 or max(omitted) >= logits.shape[-1]:
        raise ValueError(f"omitted classes {list(omitted)}: must be some, not all, of 0 to {logits.shape[-1] - 1}")
    correct(logits, labels)
    known = answers(logits) != NO_ANSWER  # a sample with NaN logits is wrong with any offset
    z, labels = logits[known].astype(np.float64), labels[known]
    if not len(z):
        return 0.0
    margins = z[:, others].max(axis=1) - z[:, list(omitted)].max(axis=1)  # offset from which an omitted class wins
    then = np.asarray(omitted)[z[:, list(omitted)].argmax(axis=1)] == labels
    until = np.asarray(others)[z[:, others].argmax(axis=1)] == labels
    order = margins.argsort()
    at = margins[order]
    right = until.sum() + np.concatenate([[0], np.cumsum(then[order].astype(int) - until[order].astype(int))])
    tried = np.concatenate([at[:1] - 1, (at[:-1] + at[1:]) / 2, at[-1:] + 1])
    apart = np.concatenate([[True], np.diff(at) > ROUNDING, [True]])  # no offset lies between equal margins
    tried, right = np.append(tried[apart], 0.0), np.append(right[apart], correct(z, labels).sum())
    best = tried[right == right.max()]
    return float(best[np.abs(best).argmin()])


def shifted(logits: NDArray[np.floating], omitted: Sequence[int], offset: float) -> NDArray[np.float64]:
    """Add an offset to the logits of some classes: (N, C) -> (N, C)."""
    moved = logits.astype(np.float64)
    moved[:, list(omitted)] += offset
    return moved
