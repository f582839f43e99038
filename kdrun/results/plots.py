"""Pictures, readable in print and by the colour-blind (Okabe & Ito's palette, a marker and a line style each)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdrun.results.sweep import Sweep

STYLE = {  # role or set -> colour, marker, line
    "student test": ("#0072B2", "o", "-"),
    "student val": ("#56B4E9", "^", "--"),
    "baseline": ("#D55E00", "s", "-."),
    "teacher": ("#009E73", "D", ":"),
}


def plot_sweep(sweep: Sweep, folder: Path) -> Path | None:
    """Draw accuracy against the swept key into sweep.png and sweep.svg; None where no cell has numbers.

    One numeric key is a line with bands (± one standard deviation over seeds), two are a heat map, anything
    else is points with bars; baseline and teacher are lines across.
    """
    if not sweep.done:
        return None
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from kdrun.results.sweep import numeric_keys

    numeric = numeric_keys(sweep)
    with plt.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "kdrun"}):
        figure, axes = plt.subplots(figsize=(7.2, 4.4), layout="constrained")
        if len(sweep.keys) == 2 and len(numeric) == 2:
            _heat_map(sweep, figure, axes)
        else:
            _lines(sweep, axes, numeric=len(sweep.keys) == 1 and len(numeric) == 1)
        for suffix in ("png", "svg"):
            figure.savefig(folder / f"sweep.{suffix}", dpi=150, metadata={"Date": None} if suffix == "svg" else None)
        plt.close(figure)
    return folder / "sweep.png"


def _lines(sweep: Sweep, axes: Any, *, numeric: bool) -> None:
    from kdrun.results.sweep import series

    key = sweep.keys[0]
    labels = ["\n".join(str(cell.values[k]) for k in sweep.keys) for cell in sweep.cells]
    xs = [float(cell.values[key]) for cell in sweep.cells] if numeric else [float(i) for i in range(len(labels))]
    order = sorted(range(len(xs)), key=xs.__getitem__)
    for part in ("val", "test"):
        name = f"{sweep.role} {part}"
        colour, marker, line = STYLE[f"student {part}"]
        summaries = series(sweep, sweep.role, part)
        points = [(xs[i], s) for i in order if (s := summaries[i]) is not None]
        if not points:
            continue
        x = [p[0] for p in points]
        mean = [100 * p[1].mean for p in points]
        spread = [100 * (p[1].std or 0.0) for p in points]
        if numeric:
            axes.plot(x, mean, color=colour, marker=marker, linestyle=line, label=name, zorder=3)
            low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        else:
            shift = -0.08 if part == "val" else 0.08
            at = [v + shift for v in x]
            axes.errorbar(at, mean, spread, color=colour, marker=marker, linestyle="none", capsize=3, label=name, zorder=3)
    for role in ("baseline", "teacher"):
        row = sweep._shared(role) if role != sweep.role else None
        if row is None or not row.get("test_accuracy"):
            continue
        colour, _, line = STYLE[role]
        mean, std = 100 * row["test_accuracy"]["mean"], 100 * (row["test_accuracy"]["std"] or 0.0)
        axes.axhline(mean, color=colour, linestyle=line, linewidth=1.8, label=f"{role} test")
        axes.axhspan(mean - std, mean + std, color=colour, alpha=0.12, linewidth=0)
    if sweep.best is not None:
        place = xs[sweep.cells.index(sweep.best)]
        axes.axvline(place, color="0.6", linewidth=1, linestyle=(0, (1, 2)), zorder=1, label="best by validation")
    if numeric and min(xs) > 0 and max(xs) / min(xs) >= 8:
        axes.set_xscale("log", base=2)
    if not numeric or len(xs) <= 12:
        axes.set_xticks(xs, [cell.values[key] for cell in sweep.cells] if numeric else labels)
        axes.minorticks_off()
    axes.set_xlabel(", ".join(sweep.keys))
    axes.set_ylabel("accuracy, %")
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _heat_map(sweep: Sweep, figure: Any, axes: Any) -> None:
    from kdrun.results.sweep import series

    first, second = sweep.keys
    ys = sorted({float(c.values[first]) for c in sweep.cells})
    xs = sorted({float(c.values[second]) for c in sweep.cells})
    grid = [[float("nan")] * len(xs) for _ in ys]
    for cell, found in zip(sweep.cells, series(sweep, sweep.role, "val"), strict=True):
        if found is not None:
            grid[ys.index(float(cell.values[first]))][xs.index(float(cell.values[second]))] = 100 * found.mean
    image = axes.imshow(grid, cmap="cividis", aspect="auto", origin="lower")
    middle = image.norm.vmin is not None and (image.norm.vmin + image.norm.vmax) / 2
    for i, row in enumerate(grid):
        for j, value in enumerate(row):
            if value == value:
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < middle else "black")
    if sweep.best is not None:
        i, j = ys.index(float(sweep.best.values[first])), xs.index(float(sweep.best.values[second]))
        axes.add_patch(_frame(j, i))
    axes.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
    axes.set_yticks(range(len(ys)), [f"{y:g}" for y in ys])
    axes.set_xlabel(second)
    axes.set_ylabel(first)
    figure.colorbar(image, ax=axes, label=f"{sweep.role} validation accuracy, %")


def _frame(x: int, y: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=3)
