"""The picture of a sweep: accuracy over the swept keys, with baseline and teacher as horizontal lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdrun.results.plots.style import STYLE, drawing, plain, save
from kdrun.results.runs import number

if TYPE_CHECKING:
    from kdrun.results.sweep.sweep import Sweep


def plot_sweep(sweeps: Sequence[Sweep], folder: Path) -> Path | None:
    """Draw accuracy against the swept key into sweep.png and sweep.svg; None if no cell has numbers.

    One numeric key makes a line with bands (± one standard deviation over seeds), two a heat map or, in a search,
    points in a plane, anything else points with bars; baseline and teacher are horizontal lines. Each of several
    students has axes of its own.
    """
    sweeps = [sweep for sweep in sweeps if sweep.done]
    if not sweeps:
        return None
    with drawing() as plt:
        figure, grid = plt.subplots(len(sweeps), squeeze=False, figsize=(7.2, 4.4 * len(sweeps)), layout="constrained")
        for sweep, axes in zip(sweeps, grid[:, 0], strict=True):
            if len(sweeps) > 1:
                axes.set_title(plain(sweep.lane), loc="left")
            _draw(sweep, figure, axes)
        return save(figure, folder, "sweep")


def _draw(sweep: Sweep, figure: Any, axes: Any) -> None:
    """Draw the kind of picture that suits the swept keys."""
    numeric = sweep.numeric_keys() == sweep.keys
    if numeric and len(sweep.keys) == 2 and sweep.record.get("searched"):
        _scatter(sweep, figure, axes)
    elif numeric and len(sweep.keys) == 2:
        _heat_map(sweep, figure, axes)
    elif numeric and len(sweep.keys) == 1:
        _lines(sweep, axes)
    else:
        longest = max((len(value) for cell in sweep.done for value in cell.shown.values()), default=0)
        width, height = figure.get_size_inches()
        figure.set_size_inches(max(width, 2.8 + len(sweep.done) * (0.3 + 0.1 * longest)), height)
        _points(sweep, axes)


def _series(sweep: Sweep) -> list[tuple[str, str, str]]:
    """Return role, part and style of what is drawn per cell: also baseline and teacher, if cells do not share them."""
    own = [role for role in ("baseline", "teacher") if sweep.role != role and not sweep.shared(role)]
    return [*((sweep.role, part, part) for part in ("val", "test")), *((role, "test", role) for role in own)]


def _lines(sweep: Sweep, axes: Any) -> None:
    """Draw accuracy over one numeric key."""
    (key,) = sweep.keys
    cells = sorted(sweep.done, key=lambda cell: float(cell.values[key]))
    xs = [float(cell.values[key]) for cell in cells]
    for role, part, style in _series(sweep):
        colour, marker, line = STYLE[style]
        points = [(x, s) for x, cell in zip(xs, cells, strict=True) if (s := sweep.summary(cell, part, role))]
        if points:
            at = [x for x, _ in points]
            axes.plot(at, [100 * s.mean for _, s in points], color=colour, marker=marker, linestyle=line,
                      label=f"{role} {part}", zorder=3)  # fmt: skip
            low = [100 * max(0.0, s.mean - (s.std or 0.0)) for _, s in points]
            high = [100 * min(1.0, s.mean + (s.std or 0.0)) for _, s in points]
            axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
    if min(xs) > 0 and max(xs) / min(xs) >= 8:
        axes.set_xscale("log", base=2)
    if len(xs) <= 12:
        axes.set_xticks(xs, [cell.shown[key] for cell in cells])
        axes.minorticks_off()
    _frame(sweep, axes, None if sweep.best is None else float(sweep.best.values[key]))


def _points(sweep: Sweep, axes: Any) -> None:
    """Draw accuracy over choices that have no order, or over more than two keys."""
    for place, (role, part, style) in enumerate(_series(sweep)):
        colour, marker, _ = STYLE[style]
        shift = 0.16 * place - 0.08
        points = [(i + shift, s) for i, cell in enumerate(sweep.done) if (s := sweep.summary(cell, part, role))]
        if points:
            at, means = [x for x, _ in points], [100 * s.mean for _, s in points]
            axes.errorbar(at, means, [100 * (s.std or 0.0) for _, s in points], color=colour, marker=marker,
                          linestyle="none", capsize=3, label=f"{role} {part}", zorder=3)  # fmt: skip
    axes.set_xticks(range(len(sweep.done)), ["\n".join(plain(v) for v in cell.shown.values()) for cell in sweep.done])
    axes.set_xlim(-0.5, len(sweep.done) - 0.5)
    _frame(sweep, axes, None if sweep.best is None else sweep.done.index(sweep.best))


def _frame(sweep: Sweep, axes: Any, best: float | None) -> None:
    """Add what lines and points have in common: baseline and teacher, the chosen cell, labels and legend."""
    for role in ("baseline", "teacher"):
        level = [row for row in sweep.shared(role) if row["role"] != "assistant"][-1:]
        test = number(level[0], "test_accuracy") if level else None
        if test is not None:
            colour, _, line = STYLE[role]
            mean, std = 100 * test.mean, 100 * (test.std or 0.0)
            axes.axhline(mean, color=colour, linestyle=line, linewidth=1.8, label=f"{role} test")
            axes.axhspan(mean - std, mean + std, color=colour, alpha=0.12, linewidth=0)
    if best is not None:
        axes.axvline(best, color="0.5", linewidth=1, linestyle=(0, (1, 2)), zorder=1, label="best by validation")
    spread = any((s := sweep.summary(cell, "test")) and s.std is not None for cell in sweep.done)
    axes.set_xlabel(plain(", ".join(sweep.keys)))
    axes.set_ylabel("accuracy, %" + (" (± std over seeds)" if spread else ""))
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    shown = sorted(zip(labels, handles, strict=True), key=lambda pair: not pair[0].startswith(sweep.role))
    axes.legend([h for _, h in shown], [s for s, _ in shown], frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _heat_map(sweep: Sweep, figure: Any, axes: Any) -> None:
    """Draw accuracy over two numeric keys as a heat map: on validation data, if there are any, else on test data."""
    first, second = sweep.keys
    part = "val" if any(sweep.summary(cell, "val") for cell in sweep.done) else "test"
    ys, xs = (sorted({float(cell.values[key]) for cell in sweep.cells}) for key in sweep.keys)
    known = {
        (float(cell.values[first]), float(cell.values[second])): 100 * s.mean
        for cell in sweep.done
        if (s := sweep.summary(cell, part))
    }
    grid = [[known.get((y, x), float("nan")) for x in xs] for y in ys]
    middle = (min(known.values()) + max(known.values())) / 2
    image = axes.imshow(grid, cmap="cividis", aspect="auto", origin="lower")
    for i, row in enumerate(grid):
        for j, value in enumerate(row):
            text = f"{value:.2f}" if value == value else "–"
            axes.text(j, i, text, ha="center", va="center", color="white" if value < middle else "black")
    if sweep.best is not None:
        from matplotlib.patches import Rectangle

        i, j = ys.index(float(sweep.best.values[first])), xs.index(float(sweep.best.values[second]))
        label = f"best by validation: {first}={ys[i]:g}, {second}={xs[j]:g}"
        axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, edgecolor="#D55E00", linewidth=3))
        axes.set_title(label, fontsize=11, color="#A84800")
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
    figure.colorbar(image, ax=axes, label=f"{sweep.role} {'validation' if part == 'val' else part} accuracy, %")


def _scatter(sweep: Sweep, figure: Any, axes: Any) -> None:
    """Draw the trials of a search over two numeric keys, coloured by the accuracy that it maximises."""
    from kdrun.results.sweep.sweep import BOUNDED

    first, second = sweep.keys
    tried = [(cell, s) for cell in sweep.done if (s := sweep.summary(cell, "val"))]
    xs, ys = ([float(cell.values[key]) for cell, _ in tried] for key in (second, first))
    image = axes.scatter(xs, ys, c=[100 * s.mean for _, s in tried], cmap="cividis", s=70, edgecolors="0.3", zorder=3)
    if sweep.best is not None:
        x, y = float(sweep.best.values[second]), float(sweep.best.values[first])
        axes.scatter([x], [y], s=260, facecolors="none", edgecolors="#D55E00", linewidth=2.5, zorder=4)
        label = f"best by validation: {first}={sweep.best.shown[first]}, {second}={sweep.best.shown[second]}"
        axes.set_title(label, fontsize=11, color="#A84800")
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
    figure.colorbar(image, ax=axes, label=f"{sweep.role} validation accuracy, %")
