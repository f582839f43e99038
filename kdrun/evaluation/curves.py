"""How fast and how steadily a training converged, from a curve with one value per epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def epochs_to(curve: Sequence[float], share: float) -> int | None:
    """Return the first epoch, counted from 1, with at least `share` of the curve's last value.

    None if the curve is empty or not finite, or if its last value is 0 or less. On validation accuracy this measures
    how fast a training converged: share=0.95 gives the epochs to 95% of the final accuracy. The curve may fall below
    that level again before it ends.
    """
    if not len(curve) or not np.isfinite(curve).all() or curve[-1] <= 0:
        return None
    reached = np.asarray(curve) >= share * curve[-1] - 1e-12  # for rounding: in float64, 0.9 * 0.8 > 0.72
    return int(reached.argmax()) + 1


def unsteadiness(curve: Sequence[float]) -> float | None:
    """Return the sample standard deviation of the last third of a curve; None if that has fewer than two values.

    If it is small, it hardly matters at which epoch a network is measured.
    """
    last = np.asarray(curve[len(curve) - len(curve) // 3 :], dtype=np.float64)
    return float(last.std(ddof=1)) if len(last) > 1 and np.isfinite(last).all() else None
