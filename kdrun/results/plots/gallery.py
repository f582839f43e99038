"""Pictures of test images with each network's probabilities: those that distillation changes, and missing classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdrun.results.plots.style import OTHERS, STYLE, picture, plain, save, shortened

ACROSS = 6  # images in a line
MOST_CLASSES = 3  # classes with bars: the true one, then the networks' wrong predictions
LONGEST = 24  # characters of a class's name that fit above its bars
WIDTH, HEAD, SIDE, NAME, BAR = 12.0, 0.55, 1.35, 0.24, 0.14  # inches


@dataclass(frozen=True)
class Card:
    """A test image, pixels (H, W) or (H, W, 3) in 0..255, its true class, and each network's probabilities (C,)."""

    index: int
    pixels: NDArray[np.uint8]
    label: int
    probabilities: Mapping[str, NDArray[np.float64]]


def plot_cards(lines: Mapping[str, Sequence[Card]], names: Sequence[str], folder: Path, name: str) -> Path | None:
    """Draw NAME.svg: titled lines of images, each above bars of the networks' probabilities.

    The bars show the true class, first and in bold, and the networks' wrong predictions. None without an image.
    """
    lines = {title: cards for title, cards in lines.items() if cards}
    if not lines:
        return None
    networks = list(next(iter(lines.values()))[0].probabilities)
    heights = [_height(max(len(_classes(card)) for card in cards), len(networks)) for cards in lines.values()]

    def draw(plt: Any) -> None:
        figure = plt.figure(figsize=(WIDTH, sum(heights) + 0.5))
        grid = figure.add_gridspec(len(lines), ACROSS, height_ratios=heights)
        for row, (height, (title, cards)) in enumerate(zip(heights, lines.items(), strict=True)):
            for column, card in enumerate(cards):
                axes = figure.add_subplot(grid[row, column])
                if column == 0:  # marks where a line begins; if visible, the layout would make room for it
                    axes.set_title(plain(title), loc="left", visible=False)
                    axes.text(0, 0, plain(title), fontsize=11, va="top").set_in_layout(False)
                _draw(axes, card, names, height)
        handles = [plt.Rectangle((0, 0), 1, 1, **_look(name)) for name in networks]
        figure.legend(handles, networks, frameon=False, loc="outside upper left", ncols=len(networks))
        save(figure, folder, name)

    return picture(folder, name, draw)


def _height(classes: int, networks: int) -> float:
    """Return the height of a card in inches: its head, its image, and a name and bars for each class."""
    return HEAD + SIDE + classes * (NAME + BAR * networks)


def _draw(axes: Any, card: Card, names: Sequence[str], height: float) -> None:
    """Draw one image above the bars of its classes, in axes whose y is inches from the top of the card."""
    axes.set(xlim=(0, 1.3), ylim=(height, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)
    axes.text(0, HEAD - 0.1, f"test image {card.index}", fontsize=8, color="0.35", va="center")
    image = axes.inset_axes([0, 1 - (HEAD + SIDE) / height, 1, SIDE / height])
    image.imshow(card.pixels, cmap="gray" if card.pixels.ndim == 2 else None, vmin=0, vmax=255)
    image.set_anchor("NW")
    image.set_axis_off()
    top = HEAD + SIDE
    for c in _classes(card):
        axes.text(0, top + 0.6 * NAME, plain(shortened(names[c], LONGEST)), fontsize=8.5, va="center",
                  fontweight="bold" if c == card.label else "normal")  # fmt: skip
        top += NAME
        for name, p in card.probabilities.items():
            top += BAR
            axes.barh(top - BAR / 2, p[c], 0.8 * BAR, **_look(name))
            axes.text(p[c] + 0.03, top - BAR / 2, _written(float(p[c])), fontsize=7.5, va="center", color="0.25")


def _look(name: str) -> dict[str, Any]:
    """Return how a network's bars look; a network named by more than a role (`student with offset`) is hatched."""
    role, *more = name.split()
    colour, _, _ = STYLE.get(role, OTHERS)
    if not more:
        return {"facecolor": colour, "edgecolor": "white", "linewidth": 0}
    return {"facecolor": "white", "edgecolor": colour, "hatch": "/////", "linewidth": 0.8}


def _classes(card: Card) -> list[int]:
    """Return the true class and then the networks' wrong predictions, the last network's first."""
    answers = [int(np.argmax(p)) for p in card.probabilities.values()]
    return list(dict.fromkeys([card.label, *reversed(answers)]))[:MOST_CLASSES]


def _written(p: float) -> str:
    """Write a probability with two decimals, or as `< 0.01` if these would be 0.00."""
    return "< 0.01" if p < 0.005 else f"{p:.2f}"
