"""Whether an exported file gives the answers of the network it was made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation.accuracy import accuracy

TOLERANCE = 1e-3  # of the spread of the logits: float32 in another order of operations stays far below
TIE = 1e-5  # of the spread: that close, float32 itself decides between two classes


@dataclass(frozen=True)
class Parity:
    """How far a file's answers lie from the network's, over a whole set of images."""

    images: int
    deviation: float
    """Largest absolute difference of a logit."""
    spread: float
    """Standard deviation of the network's own logits, the scale that the deviation is judged by."""
    changed: int
    """Images that get another class."""
    undecided: int
    """Those among them whose two best logits are equal to within float32's rounding (1e-5 of the spread)."""
    accuracy: float
    """The network's."""
    file_accuracy: float

    @property
    def problem(self) -> str | None:
        """Return why the file is not the network, or None where it is."""
        if not self.deviation <= TOLERANCE * self.spread:  # NaN is a problem too
            return (
                f"its logits differ by up to {self.deviation:.2g} from the network's, more than "
                f"{TOLERANCE:g} of their spread ({self.spread:.3g})"
            )
        if self.changed > self.undecided:
            return f"it gives {self.changed - self.undecided} of {self.images:,} test images another class"
        return None


def compare(own: NDArray[np.floating], file: NDArray[np.floating], labels: NDArray[np.integer]) -> Parity:
    """Hold a file's logits (N, C) against the network's own, with the images' labels (N,).

    Raises ValueError where their shapes differ.
    """
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
