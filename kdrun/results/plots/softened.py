"""The picture of what a temperature does: test images with teacher's and student's probabilities at several T."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdrun.results.plots.style import STYLE, picture, plain, save, shortened

TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
MOST_CLASSES = 10  # in a panel; if there are more classes, the most probable
LONGEST = 20  # characters of a class's name that fit beside a panel
WIDTH = 12.0  # inches


@dataclass(frozen=True)
class Example:
    """A test image with its true class and the logits of both networks: pixels (H, W) or (H, W, 3) in 0..255."""

    index: int
    pixels: NDArray[np.uint8]
    label: int
    teacher: NDArray[np.floating]
    student: NDArray[np.floating]
    why: str = ""  # why it was chosen


def plot_softened(
    examples: Sequence[Example], names: Sequence[str], folder: Path, own: Sequence[float] = ()
) -> Path | None:
    """Draw softened.svg: a line of panels per image, softmax(z/T) of teacher and student.

    The axis is logarithmic, so that small probabilities can be read; those below its end are drawn at its end. `own`
    are the temperatures of the run, which have columns too. All panels of a line show the same classes: all of them, or
    ten: the true class, the student's prediction, and those that the teacher finds most probable.
    """
    from scipy.special import softmax

    if not examples:
        return None
    temperatures = sorted({*TEMPERATURES, *own})
    lowest = _lowest(examples, own)

    def draw(plt: Any) -> None:
        figure, grid = plt.subplots(len(examples), 1 + len(temperatures), squeeze=False,
                                    width_ratios=[0.75, *[1] * len(temperatures)],
                                    figsize=(WIDTH, 2.2 * len(examples) + 0.9))  # fmt: skip
        for number, (line, example) in enumerate(zip(grid, examples, strict=True)):
            _image(line[0], example, names)
            shown = _classes(example)
            for axes, T in zip(line[1:], temperatures, strict=True):
                both = {
                    role: softmax(z.astype(np.float64) / T)[shown]
                    for role, z in (("teacher", example.teacher), ("student", example.student))
                }
                _panel(axes, both, lowest)
                if number == 0:
                    axes.set_title(f"T = {T:g}" + " (this run's)" * (T in own), fontsize=11,
                                   fontweight="bold" if T in own else "normal")  # fmt: skip
            line[1].set_yticks(range(len(shown)), [plain(shortened(names[c], LONGEST)) for c in shown], fontsize=8)
            for label, c in zip(line[1].get_yticklabels(), shown, strict=True):
                label.set_fontweight("bold" if c == example.label else "normal")
        grid[-1, 1].set_xlabel(f"probability (◂ below {lowest:g})", fontsize=10)
        handles = [
            plt.Line2D([], [], color=STYLE[role][0], marker=STYLE[role][1], linestyle="none", markersize=6)
            for role in ("teacher", "student")
        ]
        figure.legend(handles, ["teacher", "student"], frameon=False, loc="outside upper left", ncols=2)
        save(figure, folder, "softened")

    return picture(folder, "softened", draw)


def _image(axes: Any, example: Example, names: Sequence[str]) -> None:
    """Draw a test image with its true class, its number, and why it was chosen."""
    axes.imshow(example.pixels, cmap="gray" if example.pixels.ndim == 2 else None, vmin=0, vmax=255)
    axes.set_axis_off()
    axes.set_anchor("NW")
    axes.set_title(plain(shortened(names[example.label], 16)), fontsize=9.5, fontweight="bold", loc="left")
    below = f"test image {example.index}" + (f"\n{example.why}" if example.why else "")
    axes.text(0, -0.03, below, transform=axes.transAxes, fontsize=8, color="0.35", va="top")


def _panel(axes: Any, both: dict[str, NDArray[np.float64]], lowest: float) -> None:
    """Draw the probabilities of teacher and student, joined by a line for each class."""
    places = {"teacher": np.arange(len(both["teacher"])) - 0.13, "student": np.arange(len(both["student"])) + 0.13}
    drawn = {role: np.maximum(p, lowest) for role, p in both.items()}
    axes.plot(np.stack([*drawn.values()]), np.stack([*places.values()]), color="0.75", linewidth=1.6, zorder=1)
    for role, size in (("teacher", 30), ("student", 22)):
        colour, marker, _ = STYLE[role]
        inside = both[role] >= lowest
        for which, shape in ((inside, marker), (~inside, "<")):
            axes.scatter(drawn[role][which], places[role][which], size, color=colour, marker=shape, label=role,
                         linewidth=0, zorder=2, clip_on=False)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(lowest, 1)
    decades = range(0, round(-np.log10(lowest)) + 1, 2)
    axes.set_xticks([10.0**-k for k in decades], [{0: "1", 2: "0.01"}.get(k, f"10⁻{'⁰¹²³⁴⁵⁶⁷⁸⁹'[k]}") for k in decades])
    axes.set_yticks([])  # the first panel has names; a picture of 25 panels with ticks takes long to draw
    axes.hlines(places["teacher"] + 0.13, lowest, 1, color="0.92", linewidth=0.8, zorder=0)
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)


def _classes(example: Example) -> list[int]:
    """Return the classes of a line: all in order, or if there are too many a choice, sorted by the teacher's logits."""
    ranked = np.argsort(-example.teacher, kind="stable").tolist()
    if len(ranked) <= MOST_CLASSES:
        return list(range(len(ranked)))
    needed = {example.label, int(example.student.argmax())}
    needed |= set([c for c in ranked if c not in needed][: MOST_CLASSES - len(needed)])
    return [c for c in ranked if c in needed]


def _lowest(examples: Sequence[Example], own: Sequence[float]) -> float:
    """Return the lower end of the axis: the decade below the least probability at the run's T, within 1e-8 and 1e-4."""
    from scipy.special import softmax

    T = min(own, default=4.0)
    least = min(
        softmax(z.astype(np.float64) / T)[_classes(one)].min() for one in examples for z in (one.teacher, one.student)
    )
    return float(10.0 ** np.clip(np.floor(np.log10(max(least, 1e-9))), -8, -4))
