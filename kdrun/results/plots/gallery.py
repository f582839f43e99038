"""Pictures of test images with what each network says of them: those that distillation changes, and missing classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdrun.results.plots.style import OTHERS, STYLE, drawing, plain, save, shortened

ACROSS = 6  # images in a line
MOST_CLASSES = 3  # with bars: the true one, then the networks' other answers
LONGEST = 24  # characters of a class's name that fit above its bars
WIDTH = 12.0  # inches


@dataclass(frozen=True)
class Card:
    """A test image, pixels (H, W) or (H, W, 3) in 0..255, its true class, and each network's probabilities (C,)."""

    index: int
    pixels: NDArray[np.uint8]
    label: int
    probabilities: Mapping[str, NDArray[np.float64]]


def plot_cards(lines: Mapping[str, Sequence[Card]], names: Sequence[str], folder: Path, name: str) -> Path | None:
    """Draw NAME.png and NAME.svg: titled lines of images, each above bars of the networks' probabilities.

    Bars are of the true class, which stands first in bold, and of the networks' wrong answers. None without an image.
    """
    lines = {title: cards for title, cards in lines.items() if cards}
    if not lines:
        return None
    networks = list(next(iter(lines.values()))[0].probabilities)
    rows = {title: max(len(_classes(card)) for card in cards) for title, cards in lines.items()}
    heights = [1.9 + shown * (0.2 + 0.14 * len(networks)) for shown in rows.values()]
    with drawing() as plt:
        figure = plt.figure(figsize=(WIDTH, sum(heights) + 0.4), layout="constrained")
        parts = figure.subfigures(len(lines), 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, (title, cards) in zip(parts, lines.items(), strict=True):
            part.suptitle(plain(title), x=0.005, horizontalalignment="left", fontsize=11)
            bars = rows[title] * (0.2 + 0.14 * len(networks))
            grid = part.subplots(2, ACROSS, height_ratios=[1.15, bars], squeeze=False)
            for axes in grid.flat:
                axes.set_axis_off()
            for above, below, card in zip(*grid, cards, strict=False):
                above.imshow(card.pixels, cmap="gray" if card.pixels.ndim == 2 else None, vmin=0, vmax=255)
                above.set_anchor("W")
                above.set_title(f"test image {card.index}", fontsize=8, color="0.35", loc="left")
                _bars(below, card, names, rows[title])
        handles = [plt.Rectangle((0, 0), 1, 1, **_look(name)) for name in networks]
        figure.legend(handles, networks, frameon=False, loc="outside upper left", ncols=len(networks))
        return save(figure, folder, name)


def _bars(axes: Any, card: Card, names: Sequence[str], room: int) -> None:
    """Draw the bars of one image, with room for as many classes."""
    step = len(card.probabilities) + 1.5
    for place, c in enumerate(_classes(card)):
        top = place * step
        axes.text(0, top, plain(shortened(names[c], LONGEST)), fontsize=8.5, va="center",
                  fontweight="bold" if c == card.label else "normal")  # fmt: skip
        for number, (name, p) in enumerate(card.probabilities.items()):
            at = top + 1.05 + number
            axes.barh(at, p[c], 0.8, **_look(name))
            axes.text(p[c] + 0.03, at, _written(float(p[c])), fontsize=7.5, va="center", color="0.25")
    axes.set_xlim(0, 1.3)
    axes.set_ylim(room * step - 0.5, -0.8)


def _look(name: str) -> dict[str, Any]:
    """Return how a network's bars look; what is not a role by itself, as a student with an offset, is hatched."""
    role, *more = name.split()
    colour, _, _ = STYLE.get(role, OTHERS)
    if not more:
        return {"facecolor": colour, "edgecolor": "white", "linewidth": 0}
    return {"facecolor": "white", "edgecolor": colour, "hatch": "/////", "linewidth": 0.8}


def _classes(card: Card) -> list[int]:
    """Return the true class and then the networks' other answers, the last network's first."""
    answers = [int(np.argmax(p)) for p in card.probabilities.values()]
    return list(dict.fromkeys([card.label, *reversed(answers)]))[:MOST_CLASSES]


def _written(p: float) -> str:
    """Write a probability with two decimals, and a small one as what it is below."""
    return "< 0.01" if p < 0.005 else f"{p:.2f}"
