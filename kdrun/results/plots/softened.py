"""The picture of what a temperature does: test images with teacher's and student's probabilities at T = 1, 2, 4, 8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdrun.results.plots.style import STYLE, drawing, plain, save

TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
MOST_CLASSES = 10  # bars in a panel; if there are more classes, the most probable


@dataclass(frozen=True)
class Example:
    """A test image with its true class and the logits of both networks: pixels (H, W) or (H, W, 3) in 0..255."""

    index: int
    pixels: NDArray[np.uint8]
    label: int
    teacher: NDArray[np.floating]
    student: NDArray[np.floating]


def plot_softened(examples: Sequence[Example], names: Sequence[str], folder: Path) -> Path | None:
    """Draw softened.png and softened.svg: a line of panels per image, softmax(z/T) of teacher and student as bars.

    All panels of a line show the same classes: all of them, or the ten most probable by the teacher.
    """
    from scipy.special import softmax

    if not examples:
        return None
    with drawing() as plt:
        figure, grid = plt.subplots(len(examples), 1 + len(TEMPERATURES), squeeze=False, layout="constrained",
                                    width_ratios=[0.8, 1, 1, 1, 1],
                                    figsize=(12.0, 2.35 * len(examples) + 0.5))  # fmt: skip
        for number, (line, example) in enumerate(zip(grid, examples, strict=True)):
            picture, *panels = line
            grey = example.pixels.ndim == 2
            picture.imshow(example.pixels, cmap="gray" if grey else None, vmin=0, vmax=255)
            picture.set_axis_off()
            picture.set_title(f"{plain(names[example.label])}\ntest image {example.index}", fontsize=10)
            shown = np.sort(np.argsort(-example.teacher, kind="stable")[:MOST_CLASSES])
            at = np.arange(len(shown))
            for axes, T in zip(panels, TEMPERATURES, strict=True):
                for role, z, shift in (("teacher", example.teacher, -0.2), ("student", example.student, 0.2)):
                    p = softmax(z.astype(np.float64) / T)[shown]
                    hatch = "" if role == "teacher" else "///"
                    axes.barh(at + shift, p, 0.4, color=STYLE[role][0], label=role, hatch=hatch, edgecolor="white",
                              linewidth=0)  # fmt: skip
                axes.set_xlim(0, 1)
                axes.invert_yaxis()
                first = axes is panels[0]
                axes.set_yticks(at, [plain(names[c])[:16] for c in shown] if first else [], fontsize=8)
                axes.tick_params(axis="y", length=0)
                axes.tick_params(axis="x", labelsize=8)
                if number == 0:
                    axes.set_title(f"T = {T:g}", fontsize=11)
        grid[-1, 1].set_xlabel("probability")
        figure.legend(*grid[0, -1].get_legend_handles_labels(), frameon=False, loc="outside upper left", ncols=2)
        return save(figure, folder, "softened")
