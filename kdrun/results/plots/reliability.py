"""The picture of calibration: accuracy over confidence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation.calibration import pooled
from kdrun.results.comparison.study import Studied
from kdrun.results.plots.style import STYLE, picture, plain, save
from kdrun.results.tables import per_cent

FEW = 10  # images; the accuracy of a bin with fewer says next to nothing, so its bar is hatched and has no fill


def plot_reliability(studied: Mapping[str, Studied], folder: Path) -> Path | None:
    """Draw reliability.svg: accuracy and number of images per bin of confidence, all seeds pooled.

    `studied` is keyed by the rows' names. The fewer images a bin has, the paler its bar; a bar of fewer than FEW images
    is hatched. None if no network ended with weights.
    """
    known = {name: networks for name, networks in studied.items() if networks.parts}
    if not known:
        return None

    def draw(plt: Any) -> None:
        figure, grid = plt.subplots(2, len(known), squeeze=False, sharex=True, sharey="row",
                                    figsize=(3.3 * len(known) + 0.4, 5.2), height_ratios=[3, 1.2])  # fmt: skip
        for column, (name, networks) in enumerate(known.items()):
            above, below = grid[:, column]
            colour, marker, _ = STYLE[networks.row.role]
            bins = pooled([part.reliability for part in networks.parts])
            width = 1 / len(bins.count)
            at = (np.arange(len(bins.count)) + 0.5) * width
            above.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=(0, (4, 3)), label="perfect calibration")
            for i in np.flatnonzero(bins.count):
                few = bins.count[i] < FEW
                above.bar(at[i], bins.accuracy[i], 0.92 * width, facecolor="white" if few else colour, edgecolor=colour,
                          alpha=1 if few else opacity(bins.count)[i], hatch="////" * bool(few),
                          linewidth=0.8 if few else 0)  # fmt: skip
                above.scatter(bins.confidence[i], bins.accuracy[i], 28, facecolor="white" if few else colour,
                              edgecolor=colour, marker=marker, zorder=3, clip_on=False)  # fmt: skip
            below.bar(at, bins.count, 0.92 * width, color=colour, linewidth=0)
            above.set_title(f"{plain(name)}\nECE {per_cent(networks.summary('ece'))} %", loc="left", color=colour)
            below.set_xlabel("confidence")
            above.set_xlim(0, 1)
            above.set_ylim(0, 1.02)
            for axes in (above, below):
                axes.grid(color="0.92")
                axes.set_axisbelow(True)
        seeds = max(len(networks.parts) for networks in known.values())
        grid[0, 0].set_ylabel("accuracy")
        grid[1, 0].set_ylabel("images" + (",\nall seeds" if seeds > 1 else ""))
        grid[1, 0].set_yscale("log")
        grid[1, 0].yaxis.set_major_formatter("{x:,.0f}")
        grid[1, 0].set_ylim(bottom=0.7)  # so that a bin of one image has a bar
        few = plt.Rectangle((0, 0), 1, 1, facecolor="white", edgecolor="0.4", hatch="////", linewidth=0.8)
        many = plt.Rectangle((0, 0), 1, 1, facecolor="0.4", linewidth=0)
        figure.legend([many, few, grid[0, 0].lines[0]],
                      ["the paler, the fewer images", f"fewer than {FEW} images", "perfect calibration"],
                      frameon=False, loc="outside lower left", ncols=3, fontsize=9)  # fmt: skip
        save(figure, folder, "reliability")

    return picture(folder, "reliability", draw)


def opacity(count: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the opacity of each bin's bar: from 0.15 for FEW images to 0.85 for all, linear in the logarithm."""
    share = np.log(np.maximum(count, FEW) / FEW) / np.log(max(count.sum() / FEW, 2.0))
    known: NDArray[np.float64] = 0.15 + 0.7 * np.clip(share, 0, 1)
    return known
