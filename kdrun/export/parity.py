"""Parity: whether an exported file gives the same logits as the network it was exported from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation.accuracy import accuracy

TOLERANCE = 1e-3  # of the spread of the logits; reordered float32 operations deviate far less
TIE = 1e-5  # of the spread; two classes this close are decided by rounding


@dataclass(frozen=True)
class Parity:
    """The deviation of a file's logits from the network's, over a whole set of images."""

    images: int
    deviation: float  # largest absolute difference of a logit
    spread: float  # standard deviation of the network's logits, the scale of the deviation
    changed: int  # images whose predicted class differs
    undecided: int  # of these, images whose two largest logits are equal within float32's rounding (TIE)
    accuracy: float  # of the network
    file_accuracy: float

    @property
    def problem(self) -> str | None:
        """Why the file does not match the network; None if it does."""
        if not self.deviation <= TOLERANCE * self.spread:  # also if it is NaN
            return (
                f"its logits differ by up to {self.deviation:.2g} from the network's, more than "
                f"{TOLERANCE:g} of their spread ({self.spread:.3g})"
            )
        if self.changed > self.undecided:
            return f"it classifies {self.changed - self.undecided} of {self.images:,} test images differently"
        return None


def compare(own: NDArray[np.floating], file: NDArray[np.floating], labels: NDArray[np.integer]) -> Parity:
    """Compare a file's logits (N, C) with the network's, given labels (N,). Raise ValueError if the shapes differ."""
    if own.shape != file.shape:
        raise ValueError(f"the file gives logits of shape {file.shape}, the network {own.shape}")
    own, file = own.astype(np.float64), file.astype(np.float64)
    spread = float(own.std())
    changed = own.argmax(axis=1) != file.argmax(axis=1)
    best = np.sort(own, axis=1)[:, -2:]
    close = best[:, 1] - best[:, 0] <= TIE * spread
    return Parity(
        images=len(own),
        deviation=float(np.abs(own - file).max()),
        spread=spread,
        changed=int(changed.sum()),
        undecided=int((changed & close).sum()),
        accuracy=accuracy(own, labels),
        file_accuracy=accuracy(file, labels),
    )
