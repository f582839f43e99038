"""The picture of accuracy over cost: the networks, and their Pareto front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdrun.results import statistics
from kdrun.results.cost import BATCHES, Machine, cost_of, machine
from kdrun.results.networks import StoredNetwork
from kdrun.results.plots.margins import lay_out
from kdrun.results.plots.style import OTHERS, STYLE, picture, plain, save, shortened
from kdrun.results.statistics import Summary

COSTS = {  # cost -> label of its axis; the first that is known for all networks is drawn
    "latency_1": "latency of one image, ms",
    "latency_128": "latency of 128 images, ms",
    "macs": "multiply–adds per image",
    "parameters": "parameters",
}
Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels
Group = tuple[str, str, Sequence[StoredNetwork]]  # label, role and networks
LONGEST = 48  # characters of a name that fit into the picture
TALLEST = 16.0  # inches; the picture grows up to this until all names have room


@dataclass(frozen=True)
class Point:
    """Networks of one kind: test accuracy in [0, 1] over seeds, costs by name, and the machine that timed them."""

    label: str
    role: str
    accuracy: Summary
    costs: Mapping[str, float]
    machine: Mapping[str, Any] | None = None


def front(points: Sequence[Point], cost: str) -> list[Point]:
    """Return the Pareto front: points for which no other is as cheap and more accurate, or cheaper and as accurate."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.costs[cost], -p.accuracy.mean)):
        if not best or point.accuracy.mean > best[-1].accuracy.mean:
            best.append(point)
    return best


def plot_pareto(points: Sequence[Point], folder: Path, *, cost: str | None = None, name: str = "pareto") -> Path | None:
    """Draw accuracy over cost into NAME.svg; None if the cost is known for fewer than two networks.

    The default cost is the first that all have: latency at batch 1, at batch 128, multiply–adds, parameters.
    Bars are ± one standard deviation over seeds; the line is the Pareto front of the means.
    """
    known = [key for key in COSTS if all(key in point.costs for point in points)]
    cost = cost or next(iter(known), "parameters")
    shown = [point for point in points if cost in point.costs]
    if len(shown) < 2:
        return None

    def draw(plt: Any) -> None:
        from matplotlib.ticker import LogLocator, NullLocator

        figure, axes = plt.subplots(figsize=(7.2, 4.6))
        line = [(p.costs[cost], 100 * p.accuracy.mean) for p in front(shown, cost)]
        axes.step([x for x, _ in line], [y for _, y in line], where="post", color="0.6", linewidth=1.2, zorder=1,
                  label="Pareto front")  # fmt: skip
        roles = list(dict.fromkeys(point.role for point in shown))
        for point in shown:
            colour, marker, _ = STYLE.get(point.role, OTHERS)
            std = 100 * (point.accuracy.std or 0.0)
            axes.errorbar([point.costs[cost]], [100 * point.accuracy.mean], [[std], [std]], color=colour, marker=marker,
                          capsize=3, linestyle="none", markersize=7, zorder=3)  # fmt: skip
        values = [point.costs[cost] for point in shown]
        if min(values) > 0 and max(values) / min(values) >= 4:  # a network may have no multiply–add at all
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: _plain_number(value))
        axes.set_xlabel(_axis(cost, shown[0]))
        axes.set_ylabel("test accuracy, %" + (" (± std over seeds)" if any(p.accuracy.std for p in shown) else ""))
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.margins(x=0.12, y=0.15)
        axes.set_ylim(top=min(axes.get_ylim()[1], 101))
        looks = (STYLE.get(role, OTHERS) for role in roles)
        handles = [plt.Line2D([], [], color=colour, marker=marker, linestyle="none") for colour, marker, _ in looks]
        axes.legend(
            [*handles, *axes.get_legend_handles_labels()[0]], [*roles, "Pareto front"], frameon=False, loc="lower right"
        )
        save(figure, folder, name, place=lambda: _label_all(figure, axes, shown, cost, line))

    return picture(folder, name, draw)


def pareto_points(groups: Sequence[Group], where: Machine | None = None) -> list[Point]:
    """Return a point for each group of networks: accuracy over the seeds, and costs.

    Groups without test accuracy are left out. The default machine is the one that most of them were measured on.
    """
    where = where or machine([networks for _, _, networks in groups])
    points = []
    for label, role, networks in merged(groups):
        finished = [m for m in networks if m.finished]
        accuracy = statistics.summary([m.point("test") for m in finished])
        cost = cost_of(finished, where)
        if accuracy is None or cost is None:
            continue
        costs = {"parameters": float(cost.parameters), "macs": None if cost.macs is None else float(cost.macs)}
        costs |= {f"latency_{at}": cost.latency(at) for at in BATCHES}
        points.append(Point(label, role, accuracy, {k: v for k, v in costs.items() if v is not None}, where))
    return points


def merged(groups: Sequence[Group]) -> list[Group]:
    """Merge groups that share a training into one group with the networks of both and the first one's label and role.

    So the baseline of several runs is one group with all of its seeds.
    """
    known: list[tuple[str, str, dict[str, StoredNetwork]]] = []
    for label, role, networks in groups:
        own = {str(m.result["fingerprint"]): m for m in networks}
        same = [group for group in known if group[2].keys() & own.keys()] or [(label, role, {})]
        for _, _, more in [*same[1:], ("", "", own)]:
            same[0][2].update(more)
        known = [group for group in known if group not in same[1:]] + [same[0]] * (same[0] not in known)
    return [(label, role, list(seeds.values())) for label, role, seeds in known]


def plot_pareto_by_data(groups: Sequence[Group], folder: Path, where: Machine | None = None) -> list[tuple[str, Path]]:
    """Draw pareto.svg, or for several data sets pareto-DATASET.svg, since they are not comparable.

    Return each data set's name with its picture; a data set with fewer than two networks has none.
    """
    by_data: dict[tuple[str, str], list[Group]] = {}
    for label, role, networks in groups:
        for result in (network.result for network in networks[:1]):
            key = (str(result["dataset"]), str(result.get("data") or ""))
            by_data.setdefault(key, []).append((label, role, networks))
    points = {key: pareto_points(alike, where) for key, alike in by_data.items()}
    points = {key: own for key, own in points.items() if len(own) > 1}
    names = [dataset for dataset, _ in points]
    drawn = []
    for (dataset, digest), own in points.items():
        title = dataset if names.count(dataset) == 1 else f"{dataset}-{digest[:6]}"
        name = "pareto" if len(points) == 1 else f"pareto-{title}"
        drawn += [(title, path)] if (path := plot_pareto(own, folder, name=name)) is not None else []
    return drawn


def _axis(cost: str, point: Point) -> str:
    """Return the label of the cost axis; that of a latency names the machine."""
    label = COSTS.get(cost, cost)
    if not cost.startswith("latency") or point.machine is None:
        return label
    threads = point.machine["threads"]
    cpu = f", {threads} thread{'s'[: threads != 1]}" if point.machine["kind"] == "cpu" else ""
    return f"{label}, on {point.machine['device']}{cpu}"


def _plain_number(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def _label_all(figure: Any, axes: Any, points: Sequence[Point], cost: str, line: Sequence[tuple[float, float]]) -> None:
    """Write each point's name, and make the picture taller until all names have room."""
    while not _label(figure, axes, points, cost, line, tight=figure.get_figheight() < TALLEST):
        if figure.get_figheight() >= TALLEST:
            return
        figure.set_figheight(min(TALLEST, 1.3 * figure.get_figheight()))
        lay_out(figure)


def _label(
    figure: Any, axes: Any, points: Sequence[Point], cost: str, line: Sequence[tuple[float, float]], *, tight: bool
) -> bool:
    """Write each point's name where it covers no other name, point, bar or line, and return whether all have room.

    A name takes the nearest free place. If there is none, return False with `tight`; otherwise the name takes the
    place where it covers least. A thin line leads to a name that is not beside its point.
    """
    from matplotlib.text import Text

    for text in list(axes.texts):
        text.remove()  # from a lower picture, or from another form of it
    frame = _bounds(axes.get_window_extent())
    at = [_place(axes, p.costs[cost], 100 * p.accuracy.mean) for p in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in at]
    for (x, _), p in zip(at, points, strict=True):
        ends = [100 * (p.accuracy.mean + sign * (p.accuracy.std or 0.0)) for sign in (-1, 1)]
        (_, low), (_, high) = (_place(axes, p.costs[cost], end) for end in ends)
        taken.append((x - 2, low - 1, x + 2, high + 1))
    taken.append(_bounds(axes.get_legend().get_window_extent()))
    for (x, y), (then, up) in pairwise(_place(axes, *corner) for corner in line):
        taken += [(x, y - 1, then, y + 1), (then - 1, y, then + 1, up)]
    room = True
    for (x, y), point in sorted(zip(at, points, strict=True), key=lambda pair: -pair[0][1]):
        label = plain(shortened(point.label, LONGEST))
        measured = Text(0, 0, label, fontsize=9)
        measured.set_figure(figure)
        size = measured.get_window_extent()
        width, height = float(size.width), float(size.height)
        for everywhere in (False, True):
            corners = np.array(list(_anywhere(width, height, (x, y), frame) if everywhere else _near(width, height)))
            corners = corners.reshape(-1, 2) + np.array([x, y])
            boxes = np.hstack([corners, corners + np.array([width, height])])
            covered = _covered(boxes, np.array(taken), np.array(frame))
            if len(corners) and covered.min() == 0:
                break
        best = int(covered.argmin()) if len(corners) else 0  # the first of equals
        left, bottom = corners[best] if len(corners) else (frame[0], frame[1])
        room = room and len(corners) > 0 and bool(covered[best] == 0)
        if tight and not room:
            return False
        side = 0.0 if left > x else 1.0 if left + width < x else 0.5  # of the name, where its line begins
        lead = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4, "relpos": (side, 0.5)}
        axes.annotate(
            label,
            (point.costs[cost], 100 * point.accuracy.mean),
            ((left - x) * 72 / figure.dpi, (bottom - y) * 72 / figure.dpi),
            textcoords="offset points",
            fontsize=9,
            verticalalignment="bottom",
            color=STYLE.get(point.role, OTHERS)[0],
            arrowprops=lead if everywhere or best >= 2 * 8 else None,
        ).set_in_layout(False)  # else the axes change their size, and with it all positions
        taken.append((left, bottom, left + width, bottom + height))
    return room


def _place(axes: Any, x: float, y: float) -> tuple[float, float]:
    """Return where a point of the data is, in pixels."""
    place = axes.transData.transform((x, y))
    return float(place[0]), float(place[1])


def _near(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Yield positions of a label's lower left corner, in pixels from its point: eight directions, near to far."""
    for far in (9, 18, 32, 50, 70, 95):
        yield from ((far, -height / 2), (-far - width, -height / 2), (-width / 2, far), (-width / 2, -far - height))
        yield from ((x, y) for x in (far, -far - width) for y in (far / 2, -far / 2 - height))


def _anywhere(width: float, height: float, at: tuple[float, float], frame: Box) -> list[tuple[float, float]]:
    """Return such positions all over the axes, sorted by their distance from the point `at`."""
    across, down = (
        np.arange(low + 4, high - size - 4, step) - place
        for low, high, size, step, place in zip(frame[:2], frame[2:], (width, height), (24, 7), at, strict=True)
    )
    places = [(float(dx), float(dy)) for dx in across for dy in down]
    return sorted(places, key=lambda d: (d[0] + width / 2) ** 2 + (d[1] + height / 2) ** 2)


def _bounds(box: Any) -> Box:
    """Return matplotlib's box as numbers: left, bottom, right, top in pixels."""
    return float(box.x0), float(box.y0), float(box.x1), float(box.y1)


def _covered(boxes: NDArray[np.float64], taken: NDArray[np.float64], frame: NDArray[np.float64]) -> Any:
    """Return the area that each box (n, 4) shares with the taken ones (m, 4), plus its area outside of the axes."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    outside = area - _shared(boxes, frame[None])[:, 0]
    return (_shared(boxes, taken).sum(axis=1) + outside).round(3)


def _shared(a: NDArray[np.float64], b: NDArray[np.float64]) -> Any:
    """Return the area that each box of (n, 4) shares with each of (m, 4): (n, m)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)
