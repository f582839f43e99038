"""The picture of calibration: accuracy over confidence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kdrun.evaluation.calibration import pooled
from kdrun.results.comparison.study import Studied
from kdrun.results.plots.style import STYLE, drawing, plain, save
from kdrun.results.tables import per_cent


def plot_reliability(studied: Mapping[str, Studied], folder: Path) -> Path | None:
    """Draw reliability.png and reliability.svg: accuracy and number of samples per bin of confidence, all seeds pooled.

    `studied` is keyed by the rows' names. None if no network ended with weights.
    """
    known = {name: networks for name, networks in studied.items() if networks.parts}
    if not known:
        return None
    with drawing() as plt:
        figure, grid = plt.subplots(2, len(known), squeeze=False, sharex=True, sharey="row", layout="constrained",
                                    figsize=(3.3 * len(known) + 0.4, 4.6), height_ratios=[3, 1])  # fmt: skip
        for column, (name, networks) in enumerate(known.items()):
            above, below = grid[:, column]
            colour, marker, _ = STYLE[networks.row.role]
            bins = pooled([part.reliability for part in networks.parts])
            width = 1 / len(bins.count)
            filled = bins.count > 0
            at = (np.arange(len(bins.count)) + 0.5) * width
            above.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=(0, (4, 3)))
            above.bar(at[filled], bins.accuracy[filled], 0.92 * width, color=colour, alpha=0.3, linewidth=0)
            share = bins.count[filled] / bins.count.sum()  # a bin of few images is uncertain, so its mark is small
            above.scatter(
                bins.confidence[filled], bins.accuracy[filled], 6 + 120 * share**0.5, color=colour, marker=marker
            )
            above.set_title(f"{plain(name)}\nECE {per_cent(networks.summary('ece'))} %", loc="left", color=colour)
            below.bar(at, 100 * bins.count / bins.count.sum(), 0.92 * width, color=colour, linewidth=0)
            below.set_xlabel("confidence")
            above.set_xlim(0, 1)
            above.set_ylim(0, 1.02)
            above.grid(color="0.92")
            above.set_axisbelow(True)
        grid[0, 0].set_ylabel("accuracy")
        grid[1, 0].set_ylabel("% of images")
        return save(figure, folder, "reliability")
