"""The picture of a sweep: accuracy over the swept keys beside that of baseline and teacher."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdrun.results.plots.heat_map import draw_heat_map, draw_trials
from kdrun.results.plots.kept import pictures_of
from kdrun.results.plots.style import STYLE, picture, plain, save, shortened
from kdrun.results.runs import number
from kdrun.results.statistics import Summary

if TYPE_CHECKING:
    from kdrun.results.sweep.sweep import Sweep, SweepCell

TITLES = {"val": "validation, which chooses", "test": "test, which is reported"}
LONGEST = 40  # characters of a cell's name beside its points
KEYS = 26  # characters of a line of keys above these names
WIDTH = 9.6  # inches


def plot_sweep(sweeps: Sequence[Sweep], folder: Path) -> Path | None:
    """Draw accuracy over the swept keys into sweep.svg; None if no cell has numbers.

    Validation data are on the left and test data on the right; without validation data there is one panel. One numeric
    key is drawn as a line with bands (± one standard deviation over seeds); two numeric keys as a heat map or, for a
    search, as points in a plane, both of validation alone; anything else as a row of points for each cell. Each of
    several students has panels of its own.
    """
    sweeps = [sweep for sweep in sweeps if sweep.done]
    if not sweeps:
        return None
    first = sweeps[0]
    numeric = first.numeric_keys() == first.keys
    plane = numeric and len(first.keys) == 2
    named = not plane and not (numeric and len(first.keys) == 1)
    parts = ["val", "test"] if any(s.summary(cell, "val") for s in sweeps for cell in s.done) else ["test"]
    parts = parts[:1] if plane else parts

    def draw(plt: Any) -> None:
        most = max(len(sweep.done) for sweep in sweeps)
        height = 1.5 + most * (0.38 if most <= 30 else 0.22) if named else 4.2
        size = (WIDTH, height * len(sweeps) + 0.4) if len(parts) > 1 else (7.2, height * len(sweeps))
        figure, grid = plt.subplots(len(sweeps), len(parts), squeeze=False, figsize=size,
                                    sharex="row" if named else "none", sharey="none" if plane else "row")  # fmt: skip
        for sweep, line in zip(sweeps, grid, strict=True):
            if plane:
                (draw_trials if sweep.record.get("searched") else draw_heat_map)(sweep, figure, line[0], parts[0])
                continue
            for part, axes in zip(parts, line, strict=True):
                (_points if named else _line)(sweep, part, axes)
                axes.set_title(TITLES[part] if len(parts) > 1 else "", loc="left", fontsize=11)
            if named:
                line[0].invert_yaxis()  # panels of a line share the y-axis
        for sweep, line in zip(sweeps, grid, strict=True):
            if len(sweeps) > 1:
                head = line[0].get_title(loc="left")
                line[0].set_title(plain(sweep.lane) + (f": {head}" if head else ""), loc="left", fontsize=11)
        if not plane:
            _legend(figure, grid.flat)
        save(figure, folder, "sweep")

    compared = [run for run in first.runs if run.comparison is not None]
    config = compared[0].config
    store = compared[0].store(Path(str(config.get("outputs", "outputs"))))
    with pictures_of(_made_of(first), store, config.get("report")):
        return picture(folder, "sweep", draw)


def _made_of(sweep: Sweep) -> object:
    """Return all that the picture shows: what was swept, and the numbers of every cell."""
    cells = [[cell["number"], cell["overrides"], cell["status"]] for cell in sweep.record["cells"]]
    aside = ("command", "created", "checksum")
    numbers = [{k: v for k, v in (run.comparison or {}).items() if k not in aside} for run in sweep.runs]
    return ["sweep", sweep.record.get("searched"), cells, numbers]


def _series(sweep: Sweep, part: str, cells: Sequence[SweepCell]) -> Iterator[tuple[str, list[tuple[int, Summary]]]]:
    """Yield each role that is drawn per cell, with the positions of its cells in `cells` and their accuracies.

    These roles are the sweep's own, and baseline and teacher if the cells do not share them.
    """
    own = [role for role in ("baseline", "teacher") if sweep.role != role and not sweep.shared(role)]
    for role in (*own, sweep.role):
        known = [(i, s) for i, cell in enumerate(cells) if (s := sweep.summary(cell, part, role)) is not None]
        if known:
            yield role, known


def _levels(sweep: Sweep, part: str) -> Iterator[tuple[str, Summary]]:
    """Yield baseline and teacher with their accuracy, if all cells share them."""
    for role in ("baseline", "teacher"):
        rows = [row for row in sweep.shared(role) if row["role"] != "assistant"][-1:]
        level = number(rows[0], f"{part}_accuracy") if rows else None
        if level is not None:
            yield role, level


def _line(sweep: Sweep, part: str, axes: Any) -> None:
    """Draw accuracy over one numeric key, with levels of baseline and teacher, and the chosen cell."""
    (key,) = sweep.keys
    cells = sorted(sweep.done, key=lambda cell: float(cell.values[key]))
    xs = [float(cell.values[key]) for cell in cells]
    for role, level in _levels(sweep, part):
        colour, _, line = STYLE[role]
        axes.axhline(100 * level.mean, color=colour, linestyle=line, linewidth=1.8, label=role)
        axes.axhspan(*_band(level), color=colour, alpha=0.12, linewidth=0)
    for role, known in _series(sweep, part, cells):
        colour, marker, line = STYLE[role]
        at, summaries = [xs[i] for i, _ in known], [s for _, s in known]
        axes.plot(at, [100 * s.mean for s in summaries], color=colour, marker=marker, linestyle=line, label=role,
                  zorder=3)  # fmt: skip
        low, high = zip(*map(_band, summaries), strict=True)
        axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
    if min(xs) > 0 and max(xs) / min(xs) >= 8:
        axes.set_xscale("log", base=2)
    if len(xs) <= 8:
        axes.set_xticks(xs, [cell.shown[key] for cell in cells])
        axes.minorticks_off()
    if sweep.best is not None:
        axes.axvline(float(sweep.best.values[key]), color="0.5", linewidth=1, linestyle=(0, (1, 2)), zorder=1,
                     label="best by validation")  # fmt: skip
    axes.set_xlabel(plain(key))
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel(_accuracy(sweep))
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)


def _points(sweep: Sweep, part: str, axes: Any) -> None:
    """Draw accuracy over choices that have no order, or over more than two keys: a line of points for each cell."""
    for role, level in _levels(sweep, part):
        colour, _, line = STYLE[role]
        axes.axvline(100 * level.mean, color=colour, linestyle=line, linewidth=1.8, label=role)
        axes.axvspan(*_band(level), color=colour, alpha=0.12, linewidth=0)
    drawn = list(_series(sweep, part, sweep.done))
    for place, (role, known) in enumerate(drawn):
        colour, marker, _ = STYLE[role]
        at = [i + 0.2 * (place - (len(drawn) - 1) / 2) for i, _ in known]
        axes.errorbar([100 * s.mean for _, s in known], at, xerr=[100 * (s.std or 0.0) for _, s in known],
                      color=colour, marker=marker, linestyle="none", capsize=3, label=role, zorder=3)  # fmt: skip
    names = [cell.name for cell in sweep.done]
    # if they would be too long, the keys are written once, above the values
    named_once = len(sweep.keys) == 1 or max(map(len, names)) > LONGEST
    if named_once:
        names = [", ".join(cell.shown.values()) for cell in sweep.done]
    axes.set_yticks(range(len(names)), [plain(shortened(name, LONGEST)) for name in names],
                    fontsize=11 if len(names) <= 30 else 8)  # fmt: skip
    axes.set_ylim(-0.6, len(names) - 0.4)
    if sweep.best is not None:
        chosen = sweep.done.index(sweep.best)
        axes.axhspan(chosen - 0.42, chosen + 0.42, color="0.92", linewidth=0, zorder=0, label="best by validation")
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel(plain(sweep.keys[0]) if len(sweep.keys) == 1 else "")
        if named_once and len(sweep.keys) > 1:
            keys = textwrap.fill(plain(", ".join(sweep.keys)), KEYS)
            axes.text(-0.02, 1, keys, transform=axes.transAxes, ha="right", va="bottom", fontsize=9)
    axes.set_xlabel(_accuracy(sweep))
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)


def _legend(figure: Any, panels: Sequence[Any]) -> None:
    """Write one legend for all panels above them, the student first."""
    named = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    order = ["student", "baseline", "teacher"]
    labels = sorted(named, key=lambda label: order.index(label) if label in order else len(order))
    figure.legend([named[label] for label in labels], labels, frameon=False, loc="outside upper left",
                  ncols=len(labels))  # fmt: skip


def _accuracy(sweep: Sweep) -> str:
    spread = any((s := sweep.summary(cell, "test")) and s.std is not None for cell in sweep.done)
    return "accuracy, %" + (" (± std over seeds)" if spread else "")


def _band(accuracy: Summary) -> tuple[float, float]:
    """Return mean − and + standard deviation in per cent, clipped to 0 and 100."""
    std = accuracy.std or 0.0
    return 100 * max(0.0, accuracy.mean - std), 100 * min(1.0, accuracy.mean + std)
