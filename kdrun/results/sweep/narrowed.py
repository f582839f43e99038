"""A sweep over how much the student learns from: what a teacher makes up for where images are missing.

More images are better, so that nothing is chosen among such cells; each is held against the one with the most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdrun.results.tables import per_cent

if TYPE_CHECKING:
    from kdrun.results.sweep.sweep import Sweep

KEYS = ("transfer.fraction", "transfer.omit_classes", "transfer.labels")  # another value of these is no better setting


def made_up_for(sweep: Sweep) -> list[str]:
    """Say, for each narrower part of the images, which share of what they lack the student has by its teacher.

    That is (student − baseline) / (baseline with the most images − baseline), on test data. Nothing is said where
    anything else was swept, or where the baseline is none the worse for fewer images.
    """
    key = KEYS[0]
    if sweep.keys != [key]:
        return []
    cells = sorted(sweep.done, key=lambda cell: float(cell.values[key]))
    said = []
    for cell in cells[:-1]:
        alone, taught, most = (
            sweep.summary(one, "test", role)
            for one, role in ((cell, "baseline"), (cell, "student"), (cells[-1], "baseline"))
        )
        if alone is None or taught is None or most is None or most.mean <= alone.mean:
            continue
        share = (taught.mean - alone.mean) / (most.mean - alone.mean)
        word = f"makes up for {100 * share:.0f}%" if share >= 0 else f"adds {-100 * share:.0f}%"
        said.append(
            f"{key}={cell.values[key]}: {per_cent(alone)}% alone and {per_cent(taught)}% with the teacher, where "
            f"{key}={cells[-1].values[key]} gives {per_cent(most)}% alone: the teacher {word} "
            f"{'of' if share >= 0 else 'to'} what the missing images cost."
        )
    return said
