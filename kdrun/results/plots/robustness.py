"""The curves of robustness: accuracy over the strength of each corruption and of each attack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdrun.measuring.conditions import ATTACKS, CLEAN, levels
from kdrun.results import statistics
from kdrun.results.networks import Row
from kdrun.results.plots.kept import pictures_of
from kdrun.results.plots.style import OTHERS, STYLE, picture, plain, save

if TYPE_CHECKING:
    from kdrun.results.robustness.robustness import RobustnessComparison

ACROSS = 5


def plot_robustness(comparison: RobustnessComparison, folder: Path) -> list[Path]:
    """Draw robustness.svg: a panel for each corruption and attack, with a line per row of networks.

    Each of several students has a picture of its own, robustness-STUDENT. Bands are ± one standard deviation over
    seeds; the leftmost point of a curve is the accuracy on the unchanged images.
    """
    known = [row for row in comparison.rows if comparison.measured(row)]
    above = [row for row in known if row.role in ("teacher", "assistant")]
    lanes = list(dict.fromkeys(row.lane for row in known if row not in above)) or [""]
    names = ["robustness"] if len(lanes) == 1 else [f"robustness-{lane}" for lane in lanes]
    rows = [[*above, *(row for row in known if row not in above and row.lane == lane)] for lane in lanes]
    store = next((m.folder.parent for row in known for m in row.networks), None)
    with pictures_of(_made_of(comparison), store, comparison.report):
        return [_picture(comparison, own, folder, name) for own, name in zip(rows, names, strict=True)]


def _made_of(comparison: RobustnessComparison) -> object:
    rows = [
        [row.role, row.lane, comparison.names[row], [m.folder.name for m in row.networks]] for row in comparison.rows
    ]
    measured = {folder.name: content for folder, content in comparison.measurements.items()}
    return ["robustness", vars(comparison.how), rows, measured]


def _picture(comparison: RobustnessComparison, rows: Sequence[Row], folder: Path, name: str) -> Path:
    how = comparison.how
    families = [*how.corruptions, *(attack for attack in ATTACKS if getattr(how, attack))]
    across = min(ACROSS, len(families) + 1)
    down = -(-(len(families) + 1) // across)  # one place is left for the legend

    def draw(plt: Any) -> None:
        figure, grid = plt.subplots(down, across, squeeze=False, sharey=True, figsize=(2.6 * across, 2.35 * down))
        places = list(grid.flat)
        for axes, family in zip(places, families, strict=False):
            for row in rows:
                _line(axes, comparison, row, family)
            attack = family in ATTACKS
            axes.set_title(plain(family.upper() if attack else family.replace("_", " ")), loc="left", fontsize=11)
            axes.set_xlabel("ε, of 255" if attack else "severity", fontsize=9)
            marks = [float(level) for level in ("0", *levels(family, how)) if level != "0"]
            axes.set_xticks([0.0, *marks], ["0", *(f"{mark:g}" for mark in marks)], fontsize=9)
            axes.grid(axis="y", color="0.9")
            axes.set_axisbelow(True)
        low = min(axes.dataLim.y0 for axes in places[: len(families)])
        places[0].set_ylim(10 * (max(0.0, low) // 10) - 2, 102)
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy, %")
        for axes in places[len(families) :]:
            axes.axis("off")
        handles, labels = places[0].get_legend_handles_labels()
        places[len(families)].legend(handles, labels, frameon=False, loc="upper left")
        save(figure, folder, name)

    return picture(folder, name, draw)


def _line(axes: Any, comparison: RobustnessComparison, row: Row, family: str) -> None:
    """Draw one row's mean accuracy over the strength, with ± one standard deviation."""
    at, means, low, high = [], [], [], []
    for level in dict.fromkeys(["0", *levels(family, comparison.how)]):
        source = CLEAN if level == "0" and family not in ATTACKS else family
        points = [comparison.accuracy(network)[source][level] for network in comparison.measured(row)]
        if (summary := statistics.summary(points)) is not None:
            at.append(float(level))
            means.append(100 * summary.mean)
            low.append(100 * (summary.mean - (summary.std or 0.0)))
            high.append(100 * (summary.mean + (summary.std or 0.0)))
    colour, marker, line = STYLE.get(row.role, OTHERS)
    axes.plot(
        at, means, color=colour, marker=marker, linestyle=line, markersize=4.5, label=plain(comparison.names[row])
    )
    axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
