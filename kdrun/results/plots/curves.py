"""The picture of the training curves: accuracies and every term of the loss over epochs, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdrun.results.comparison.study import history
from kdrun.results.networks import Row
from kdrun.results.plots.style import BLUE, GREEN, INK, ORANGE, PINK, SKY, STYLE, YELLOW, picture, plain, save

PARTS = (("train_accuracy", "running train", 0.45, 1.0), ("val_accuracy", "validation", 1.0, 2.0))


def plot_curves(rows: Mapping[str, Row], folder: Path) -> Path | None:
    """Draw curves.svg; `rows` is keyed by their names. None if no network has a history.

    Above: accuracy on training (thin) and validation data; below: the loss and each of its terms on training data,
    on a logarithmic scale. Lines are means over seeds, bands reach from the lowest seed to the highest.
    """
    known = {name: curves for name, row in rows.items() if (curves := [h for m in row.finished if (h := history(m))])}
    if not known:
        return None

    def draw(plt: Any) -> None:
        width = min(4.6 * len(known), 14.0)
        figure, grid = plt.subplots(2, len(known), squeeze=False, sharey="row", figsize=(width, 6.2))
        for column, (name, curves) in enumerate(known.items()):
            above, below = grid[:, column]
            colour, _, _ = STYLE[rows[name].role]
            above.set_title(plain(name), loc="left", color=colour)
            for key, label, alpha, weight in PARTS:
                _band(above, curves, key, 100, color=colour, alpha=alpha, linewidth=weight, label=label)
            terms = [key for key in curves[0][0] if key == "loss" or key.startswith("loss.")]
            terms = terms if len(terms) > 2 else terms[:1]  # with a single term the loss is that term
            for style, key in zip(_styles(len(terms)), terms, strict=True):
                _band(below, curves, key, 1, label=key.removeprefix("loss.") if key != "loss" else "loss", **style)
            below.set_xlabel("epoch")
            for axes in (above, below):
                axes.xaxis.get_major_locator().set_params(integer=True)
                axes.grid(axis="y", color="0.9")
                axes.set_axisbelow(True)
                axes.legend(frameon=False, fontsize=9)
        grid[0, 0].set_ylabel("accuracy, %")
        grid[1, 0].set_ylabel("loss and its terms")
        if all(value > 0 for curves in known.values() for curve in curves for row in curve for k, value in row.items()
               if k.startswith("loss")):  # fmt: skip
            grid[1, 0].set_yscale("log")
        save(figure, folder, "curves")

    return picture(folder, "curves", draw)


def _band(axes: Any, curves: Sequence[Sequence[Mapping[str, float]]], key: str, scale: float, **style: Any) -> None:
    """Draw the mean over seeds and their range, up to the end of the shortest curve."""
    length = min(len(curve) for curve in curves)
    values = scale * np.array([[row.get(key, np.nan) for row in curve[:length]] for curve in curves])
    if np.isnan(values).all():
        return
    at = np.arange(1, length + 1)
    axes.plot(at, values.mean(axis=0), **style)
    if len(values) > 1:
        axes.fill_between(at, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.15, linewidth=0)


def _styles(count: int) -> list[dict[str, Any]]:
    """Return a colour and a line style for the loss and for each of its terms."""
    colours = [light for light, _ in (INK, YELLOW, SKY, GREEN, PINK, ORANGE, BLUE)]
    lines = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
    return [{"color": colours[i % 7], "linestyle": lines[i % 7], "linewidth": 1.8 if i else 2.0} for i in range(count)]
