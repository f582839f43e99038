"""The form of a picture for a narrow screen: its panels below one another, in text of the usual size."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from kdrun.results.plots.margins import lay_out

WIDTH = 4.3  # inches: what a telephone shows with text of about 13 pixels
SMALL = 3.0  # inches: panels that are narrower than this in the wide form are placed two abreast
LETTERS = 44  # characters of a heading that fit into the width
LEADING = 1.3  # height of a line of text in sizes of its font
ABOVE_AND_BELOW = 1.0  # inches: a panel's title, and the labels of its x-axis and its ticks
Panels = Mapping[tuple[int, int], Any]  # row and column -> axes


def arrange(figure: Any) -> None:
    """Rearrange a figure for a narrow screen, and lay it out."""
    width, height = figure.get_size_inches()
    for axes in [axes for axes in figure.axes if not (axes.axison or axes.images or axes.get_legend())]:
        axes.remove()  # an empty panel
    panels = {(at.rowspan.start, at.colspan.start): axes for axes in figure.axes if (at := axes.get_subplotspec())}
    grid = next(iter(panels.values())).get_gridspec()
    across = 2 if grid.ncols > 1 and width / grid.ncols < SMALL else 1
    places, heights = _places(panels, across), dict[int, float]()
    for at, axes in panels.items():
        tall = height * grid.get_height_ratios()[at[0]] / sum(grid.get_height_ratios())
        tall = max(tall, _break_names(axes)) if axes.get_aspect() == "auto" else min(tall, 0.5 + WIDTH / across)
        heights[places[at][0]] = max(heights.get(places[at][0], 0.0), tall)
    figure.set_size_inches(WIDTH, sum(heights.values()) + 0.3 * bool(figure.legends))
    lines = {row: number for number, row in enumerate(sorted(heights))}  # a line without a panel is left out
    down = figure.add_gridspec(len(lines), across, height_ratios=[heights[row] for row in lines])
    for (row, column), axes in panels.items():
        axes.set_subplotspec(down[lines[places[row, column][0]], places[row, column][1]])
        if places[row, column][1] == 0:
            _with_scale(axes, [panels[at] for at in sorted(panels) if at[0] == row])
        if across > 1 and axes.axison and not _title(axes):
            axes.set_title(_title(panels[0, column]) if (0, column) in panels else "", fontsize=10)
        _fit(axes, WIDTH / across)
    for legend in list(figure.legends):
        if legend.get_window_extent().width > WIDTH * figure.dpi:  # a legend cannot change its columns
            texts = legend.get_texts()
            legend.remove()
            figure.legend(legend.legend_handles, [text.get_text() for text in texts], frameon=False, ncols=2,
                          loc="outside upper left", fontsize=min(10, texts[0].get_fontsize()))  # fmt: skip
    lay_out(figure)


def _places(panels: Panels, across: int) -> dict[tuple[int, int], tuple[int, int]]:
    """Return each panel's row and column in the narrow form.

    If each panel has a title, the panels follow one another; if only the first row has titles, column follows column;
    else row follows row, and each begins on a new line.
    """
    titled = {at for at, axes in panels.items() if _title(axes) or not axes.axison}
    if len(titled) == len(panels):
        return {at: divmod(i, across) for i, at in enumerate(sorted(panels))}
    if all(row == 0 for row, _ in titled):
        return {at: divmod(i, across) for i, at in enumerate(sorted(panels, key=lambda at: at[::-1]))}
    rows = -(-(1 + max(column for _, column in panels)) // across)
    return {(row, column): (row * rows + column // across, column % across) for row, column in panels}


def _title(axes: Any) -> str:
    return str(axes.get_title("left") or axes.get_title())


def _with_scale(axes: Any, line: Iterable[Any]) -> None:
    """Label axes at the left edge with the y-axis label and ticks that only the first panel of their line has."""
    if not axes.axison:
        return
    axes.tick_params(labelleft=True)
    for other in line:
        if not axes.get_ylabel():
            axes.set_ylabel(other.get_ylabel())
        names = [] if not other.axison else [label.get_text() for label in other.get_yticklabels()]
        if any(names) and not any(label.get_text() for label in axes.get_yticklabels()):
            axes.set_yticks(other.get_yticks(), names, fontsize=other.get_yticklabels()[0].get_fontsize())


def _break_names(axes: Any) -> float:
    """Break long labels of y-ticks in two, which leaves room for the panel; return the height in inches they need."""
    labels = axes.get_yticklabels()
    names = [label.get_text() for label in labels]
    if axes.get_yscale() == "log" or max(map(len, names), default=0) <= LETTERS // 2:  # numbers in TeX are no names
        return 0.0
    broken = [textwrap.fill(name, LETTERS // 2, max_lines=2, placeholder="…", break_on_hyphens=False) for name in names]
    size = labels[0].get_fontsize()
    axes.set_yticks(axes.get_yticks(), broken, fontsize=size)
    return float(len(names) * 2 * LEADING * size / 72 + ABOVE_AND_BELOW)


def _fit(axes: Any, width: float) -> None:
    """Break long headings, write names of many ticks upright, and make numbers smaller that their cells cannot hold."""
    from matplotlib.text import Text

    headings = {_title(axes), axes.get_xlabel()} - {""}
    for text in axes.findobj(Text):
        if text.get_text() in headings:
            text.set_text(textwrap.fill(text.get_text(), LETTERS, break_long_words=False))
    if sum(len(label.get_text()) + 2 for label in axes.get_xticklabels()) > LETTERS:
        axes.tick_params(axis="x", labelrotation=90)
    if axes.images and axes.texts:
        cell = 0.75 * width / axes.images[0].get_array().shape[1]
        widest = max(text.get_window_extent().width for text in axes.texts) / axes.figure.dpi
        for text in axes.texts:
            text.set_fontsize(max(6.0, min(1.0, 0.9 * cell / widest) * text.get_fontsize()))
