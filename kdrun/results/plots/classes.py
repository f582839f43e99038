"""The pictures of errors: per class for all networks, and the confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdrun.results.comparison.study import Studied
from kdrun.results.plots.style import BLUE, ON_COLOUR, STYLE, picture, plain, save

MOST_BARS = 20  # classes; if there are more, only those where the networks differ most
MOST_CELLS = 30  # classes; a larger confusion matrix cannot be read in a picture


def plot_classes(studied: Mapping[str, Studied], names: Sequence[str], folder: Path) -> Path | None:
    """Draw classes.svg: errors per class in per cent, mean and standard deviation over seeds.

    `studied` is keyed by the rows' names. None if no network ended with weights.
    """
    known = {name: 100 * (1 - networks.per_class()) for name, networks in studied.items() if networks.parts}
    if not known:
        return None
    means = np.array([errors.mean(axis=0) for errors in known.values()])
    shown = np.arange(len(names))
    if len(names) > MOST_BARS:
        spread = np.nan_to_num(means.max(axis=0) - means.min(axis=0))
        shown = np.sort(np.argsort(-spread, kind="stable")[:MOST_BARS])

    def draw(plt: Any) -> None:
        figure, axes = plt.subplots(figsize=(7.2, 1.2 + len(shown) * (0.11 * len(known) + 0.1)))
        height = 0.8 / len(known)
        for i, (name, errors) in enumerate(known.items()):
            colour, _, _ = STYLE[studied[name].row.role]
            at = np.arange(len(shown)) + (i - (len(known) - 1) / 2) * height
            spread = errors[:, shown].std(axis=0, ddof=1) if len(errors) > 1 else None
            axes.barh(at, errors[:, shown].mean(axis=0), height, xerr=spread, color=colour, label=plain(name),
                      hatch=("", "///", "\\\\\\", "xx")[i % 4], edgecolor="white", linewidth=0,
                      error_kw={"elinewidth": 1, "ecolor": "0.3"})  # fmt: skip
        axes.set_yticks(range(len(shown)), [plain(names[int(c)]) for c in shown])
        axes.invert_yaxis()
        axes.set_xlim(left=0)  # a bar of ± std may reach below 0, errors do not
        axes.set_xlabel(
            "errors on test data, %" + (" (± std over seeds)" if any(len(e) > 1 for e in known.values()) else "")
        )
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside upper left", ncols=len(known))
        if len(shown) < len(names):
            axes.set_title(f"the {len(shown)} of {len(names)} classes that differ most", loc="left", fontsize=10)
        save(figure, folder, "classes")

    return picture(folder, "classes", draw)


def plot_confusion(studied: Mapping[str, Studied], names: Sequence[str], folder: Path) -> Path | None:
    """Draw confusion.svg: the share of each predicted class per true class in per cent, mean over seeds.

    None if there are too many classes, or if no network ended with weights.
    """
    known = {name: networks.confusion() for name, networks in studied.items() if networks.parts}
    if not known or len(names) > MOST_CELLS:
        return None

    def draw(plt: Any) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        # from transparent to blue, so that a dark page shows through
        colours = LinearSegmentedColormap.from_list("errors", [f"{BLUE[0]}00", f"{BLUE[0]}ff"])
        side = 1.6 + 0.34 * len(names)
        size = (side * len(known), side + 0.6)
        figure, grid = plt.subplots(1, len(known), squeeze=False, sharey=True, figsize=size)
        small = 9 if len(names) <= 12 else 6
        for axes, (name, counts) in zip(grid[0], known.items(), strict=True):
            with np.errstate(invalid="ignore"):
                shares = 100 * counts / counts.sum(axis=1, keepdims=True)
            errors = np.nan_to_num(shares)  # NaN: a class without test images
            np.fill_diagonal(errors, 0)
            axes.imshow(errors, cmap=colours, vmin=0, vmax=max(10.0, errors.max()))
            for (i, j), share in np.ndenumerate(shares):
                if np.isfinite(share) and (i == j or share >= 0.5):
                    dark = errors[i, j] > 0.6 * max(10.0, errors.max())
                    axes.text(j, i, f"{share:.0f}", ha="center", va="center", fontsize=small,
                              color=ON_COLOUR if dark else "0.45" if i == j else "black")  # fmt: skip
            axes.set_title(plain(name), loc="left", color=STYLE[studied[name].row.role][0])
            axes.set_xticks(range(len(names)), [plain(n) for n in names], rotation=90, fontsize=small)
            axes.set_yticks(range(len(names)), [plain(n) for n in names], fontsize=small)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_xlabel("answer")
        grid[0, 0].set_ylabel("true class (% of its test images)")
        save(figure, folder, "confusion")

    return picture(folder, "confusion", draw)
