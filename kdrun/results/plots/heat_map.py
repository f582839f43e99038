"""The picture of a sweep over two numbers: a heat map, or in a search its trials as points in a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdrun.results.plots.style import STYLE
from kdrun.results.runs import number

if TYPE_CHECKING:
    from kdrun.results.sweep.sweep import Sweep, SweepCell

PARTS = {"val": "validation", "test": "test"}
CHOSEN = STYLE["baseline"][0]  # the colour of the ring around the chosen trial


def draw_heat_map(sweep: Sweep, figure: Any, axes: Any, part: str) -> None:
    """Draw accuracy over two numeric keys: mean ± standard deviation, framed where it is above the baseline's."""
    from matplotlib.patches import Rectangle

    first, second = sweep.keys
    ys, xs = (sorted({float(cell.values[key]) for cell in sweep.cells}) for key in sweep.keys)
    cells = {(ys.index(float(c.values[first])), xs.index(float(c.values[second]))): c for c in sweep.done}
    known = {at: s for at, cell in cells.items() if (s := sweep.summary(cell, part))}
    means = {at: 100 * s.mean for at, s in known.items()}
    width, height = figure.get_size_inches()
    figure.set_size_inches(max(width, 2.4 + 0.85 * len(xs)), max(height, height - 4.2 + 1.6 + 0.6 * len(ys)))
    grid = [[means.get((i, j), float("nan")) for j in range(len(xs))] for i in range(len(ys))]
    image = axes.imshow(grid, cmap="cividis", aspect="auto", origin="lower")
    middle = (min(means.values()) + max(means.values())) / 2
    for i in range(len(ys)):
        for j in range(len(xs)):
            s = known.get((i, j))
            text = "–" if s is None else f"{100 * s.mean:.2f}" + ("" if s.std is None else f"\n± {100 * s.std:.2f}")
            text = f"★ {text}" if cells.get((i, j)) is sweep.best is not None else text
            dark = s is not None and 100 * s.mean < middle
            axes.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize=10)
            if (i, j) in cells and beats(sweep, cells[i, j], part):
                # black on a wider white line, so that it can be seen on every colour
                for colour, line in (("white", 3.6), ("black", 1.8)):
                    axes.add_patch(Rectangle((j - 0.44, i - 0.42), 0.88, 0.84, fill=False, edgecolor=colour,
                                             linewidth=line, gid="above the baseline"))  # fmt: skip
    axes.spines[:].set_visible(False)
    axes.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
    axes.set_yticks(range(len(ys)), [f"{y:g}" for y in ys])
    # lines between the cells, so that equal neighbours do not merge
    axes.set_xticks([j + 0.5 for j in range(len(xs) - 1)], minor=True)
    axes.set_yticks([i + 0.5 for i in range(len(ys) - 1)], minor=True)
    axes.grid(which="minor", color="white", linewidth=3)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel(second)
    axes.set_ylabel(first)
    spread = " (± std over seeds)" if any(s.std is not None for s in known.values()) else ""
    bar = figure.colorbar(image, ax=axes, use_gridspec=False, label=f"{sweep.role} {PARTS[part]} accuracy, %{spread}")
    rows = [row for row in sweep.shared("baseline")][-1:]
    level = number(rows[0], f"{part}_accuracy") if rows else None
    baseline = "its baseline"
    if level is not None:
        baseline = f"the baseline ({100 * level.mean:.2f}" + ("" if level.std is None else f" ± {100 * level.std:.2f}")
        baseline += ")"
        if bar.vmin <= 100 * level.mean <= bar.vmax:
            bar.ax.axhline(100 * level.mean, color=STYLE["baseline"][0], linewidth=3)
    chosen = "" if sweep.best is None else "★ best by validation; "
    axes.set_title(f"{chosen}framed: above {baseline} on {PARTS[part]}", fontsize=10, loc="left")


def beats(sweep: Sweep, cell: SweepCell, part: str) -> bool:
    """Return whether a cell's student has a higher mean accuracy than the cell's baseline on "val" or "test"."""
    own, alone = sweep.summary(cell, part), sweep.summary(cell, part, "baseline")
    return sweep.role != "baseline" and own is not None and alone is not None and own.mean > alone.mean


def draw_trials(sweep: Sweep, figure: Any, axes: Any, part: str) -> None:
    """Draw the trials of a search over two numeric keys, coloured by the accuracy that it maximises."""
    from kdrun.results.sweep.sweep import BOUNDED

    first, second = sweep.keys
    tried = [(cell, s) for cell in sweep.done if (s := sweep.summary(cell, part))]
    xs, ys = ([float(cell.values[key]) for cell, _ in tried] for key in (second, first))
    image = axes.scatter(xs, ys, c=[100 * s.mean for _, s in tried], cmap="cividis", s=70, edgecolors="0.3", zorder=3)
    if sweep.best is not None:
        x, y = float(sweep.best.values[second]), float(sweep.best.values[first])
        axes.scatter([x], [y], s=260, facecolors="none", edgecolors=CHOSEN, linewidth=2.5, zorder=4)
        label = f"best by validation: {first}={sweep.best.shown[first]}, {second}={sweep.best.shown[second]}"
        axes.set_title(label, fontsize=11)
    for key, values, scale, axis in (
        (second, xs, axes.set_xscale, axes.xaxis),
        (first, ys, axes.set_yscale, axes.yaxis),
    ):
        if key not in BOUNDED and min(values, default=0) > 0 and max(values) / min(values) >= 8:
            scale("log", base=2)
            axis.set_major_formatter("{x:g}")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel(second)
    axes.set_ylabel(first)
    figure.colorbar(image, ax=axes, use_gridspec=False, label=f"{sweep.role} {PARTS[part]} accuracy, %")
