"""How fast a training came to its end, and how steadily, from a curve with one value per epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def epochs_to(curve: Sequence[float], share: float) -> int | None:
    """Return the first epoch, from 1, whose value is at least `share` of the last one.

    None without a curve, and for one that ends at 0.

    Counted on validation accuracy it says how fast a training converged: with share=0.95 the epochs to 95% of
    where it ended. A curve that had been higher in between counts from there.
    """
    if not len(curve) or not np.isfinite(curve).all() or curve[-1] <= 0:
        return None
    reached = np.asarray(curve) >= share * curve[-1] - 1e-12  # 0.72 is 0.9 of 0.8
    return int(reached.argmax()) + 1


def unsteadiness(curve: Sequence[float]) -> float | None:
    """Return the sample standard deviation of the last third of a curve; None where that has fewer than two values.

    Small says that it no longer matters much at which epoch one looks.
    """
    last = np.asarray(curve[len(curve) - len(curve) // 3 :], dtype=np.float64)
    return float(last.std(ddof=1)) if len(last) > 1 and np.isfinite(last).all() else None
