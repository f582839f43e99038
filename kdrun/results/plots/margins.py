"""Margins that fit: every panel of a picture is placed after measuring the text around it, mostly once.

matplotlib's constrained layout measures it four times, which takes longer than drawing the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from matplotlib.transforms import Bbox

PAD = 0.05  # inches around a panel and the text around it
BAR, GAP = 0.2, 0.12  # inches: the width of a colour bar, and its distance from its panel


MOST = 3  # measurements, if an axis's ticks change with its length


class Around(NamedTuple):
    """The room that the text around a panel takes, in inches beyond each of the panel's edges."""

    left: float = 0.45
    right: float = 0.05
    top: float = 0.25
    bottom: float = 0.4


def lay_out(figure: Any) -> None:
    """Place the panels of a figure, all in one grid, so that nothing is cut off; colour bars are at their right.

    In a grid of one column, titles and x-axis labels that would be cut off at the right are moved to the left.
    """
    panels = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    _place(figure, panels, dict.fromkeys(panels, Around()))  # about as large as they will be
    renderer = figure.canvas.get_renderer()
    for _ in range(MOST):
        before = _numbers(panels)
        _place(figure, panels, {axes: _around(axes, renderer) for axes in panels})
        if _numbers(panels) == before:
            break
    if panels[0].get_subplotspec().get_gridspec().ncols == 1:
        for axes in panels:
            _pull_in(axes, renderer)


def _place(figure: Any, panels: Iterable[Any], around: Mapping[Any, Around]) -> None:
    """Place panels by their grid's ratios, in the part of the figure that the margins leave."""
    places = {axes: (at.rowspan.start, at.colspan.start) for axes in panels if (at := axes.get_subplotspec())}
    grid = next(iter(places)).get_gridspec()
    width, height = figure.get_size_inches()
    above, below = (_legends(figure, edge) for edge in ("upper", "lower"))
    rows, columns = range(grid.nrows), range(grid.ncols)

    def margins(side: str, along: int, lines: range) -> list[float]:
        return [max((getattr(around[a], side) for a, at in places.items() if at[along] == n), default=0.0) + PAD
                for n in lines]  # fmt: skip

    left, right = margins("left", 1, columns), margins("right", 1, columns)
    top, bottom = margins("top", 0, rows), margins("bottom", 0, rows)
    widths = _shared(width - sum(left) - sum(right), grid.get_width_ratios(), grid.ncols)
    heights = _shared(height - above - below - sum(top) - sum(bottom), grid.get_height_ratios(), grid.nrows)
    for axes, (row, column) in places.items():
        x = sum(left[: column + 1]) + sum(right[:column]) + sum(widths[:column])
        y = height - above - sum(top[: row + 1]) - sum(bottom[:row]) - sum(heights[: row + 1])
        axes.set_position((x / width, y / height, widths[column] / width, heights[row] / height))
        axes.apply_aspect()
        for bar in _bars(axes):
            box = axes.get_position()
            bar.set_box_aspect(None)
            bar.set_position((box.x1 + GAP / width, box.y0, BAR / width, box.height))


def _shared(room: float, ratios: Iterable[float] | None, count: int) -> list[float]:
    """Divide room in inches among lines by their ratios, at least 0.1 for each."""
    ratios = list(ratios or [1] * count)
    return [max(0.1, room * ratio / sum(ratios)) for ratio in ratios]


def _around(axes: Any, renderer: Any) -> Around:
    """Measure what is around a panel: tick and axis labels, titles, texts, the legend, and the colour bar."""
    dots = axes.figure.dpi
    box = axes.get_window_extent(renderer)
    texts = [axes.title, axes._left_title, axes._right_title]
    texts += [text for text in axes.texts if not (axes.images and text.get_transform() == axes.transData)]
    shown = [text for text in texts if text.get_text() and text.get_visible() and text.get_in_layout()]
    written = [text.get_window_extent(renderer) for text in shown]
    alone = axes.get_subplotspec().get_gridspec().ncols == 1  # then text above a panel may reach beyond its right edge
    written = [Bbox([[e.x0, e.y0], [min(e.x1, box.x1), e.y1]]) if alone and e.y0 >= box.y1 else e for e in written]
    scales = [*([axes.xaxis, axes.yaxis] if axes.axison else []), *(bar.yaxis for bar in _bars(axes))]
    extents = [scale.get_tightbbox(renderer, for_layout_only=alone and scale is axes.xaxis) for scale in scales]
    written += [extent for extent in extents if extent is not None]
    if (legend := axes.get_legend()) is not None:
        written.append(legend.get_window_extent(renderer))
    written += [bar.get_window_extent(renderer) for bar in _bars(axes)]
    beyond = ((box.x0 - e.x0, e.x1 - box.x1, e.y1 - box.y1, box.y0 - e.y0) for e in written)
    return Around(*(max(0.0, *distances) / dots for distances in zip((0.0,) * 4, *beyond, strict=True)))


def _pull_in(axes: Any, renderer: Any) -> None:
    """Move a panel's title and x-axis label to the left as far as they reach beyond the figure."""
    edge = axes.figure.bbox.x1 - PAD * axes.figure.dpi
    box = axes.get_window_extent(renderer)
    for text in (axes.title, axes._left_title, axes.xaxis.label):
        beyond = text.get_window_extent(renderer).x1 - edge
        if text.get_text() and beyond > 0:
            text.set_x(text.get_position()[0] - beyond / box.width)


def _numbers(panels: Iterable[Any]) -> list[list[float]]:
    """Return the positions of the ticks of all axes."""
    scales = [scale for axes in panels if axes.axison for scale in (axes.xaxis, axes.yaxis)]
    return [scale.get_majorticklocs().tolist() for scale in scales]


def _bars(axes: Any) -> list[Any]:
    """Return the axes of a panel's colour bars."""
    return list(getattr(axes, "_colorbars", ()))


def _legends(figure: Any, edge: str) -> float:
    """Return the height in inches that the figure's legends at its upper or lower edge take."""
    legends = [legend for legend in figure.legends if legend._outside_loc == edge]
    return sum((one.get_window_extent().height / figure.dpi + 2 * PAD for one in legends), 0.0)
