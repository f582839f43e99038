"""The picture of accuracy over cost: the front, the axis, and names that do not cover one another."""

import itertools
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from kdrun.results.networks import StoredNetwork
from kdrun.results.plots import style
from kdrun.results.plots.margins import lay_out
from kdrun.results.plots.pareto import Point, front, merged, plot_pareto
from kdrun.results.statistics import Summary
from tests.results.given import artifact as made


def point(label, accuracy, role="student", **costs):
    return Point(label, role, Summary(accuracy, 0.004, 3), {"parameters": 1e6, **costs})


def networks_of(folders):
    return [StoredNetwork.read(folder) for folder in folders]


def overlap(a, b):
    """For each two boxes (left, bottom, right, top) whether they share an area: (n, 4), (m, 4) -> (n, m)."""
    return ((a[:, None, :2] < b[None, :, 2:]) & (b[None, :, :2] < a[:, None, 2:])).all(axis=2)


def labels(result):
    return [p.label for p in result]


def test_the_front_is_what_none_beats_in_both():
    points = [point("a", 0.90, ms=1), point("b", 0.95, ms=2), point("c", 0.94, ms=3), point("d", 0.97, ms=9),
              point("e", 0.89, ms=1), point("f", 0.97, ms=12)]  # fmt: skip
    assert labels(front(points, "ms")) == ["a", "b", "d"]
    for one, other in itertools.product(front(points, "ms"), points):
        assert not (other.costs["ms"] < one.costs["ms"] and other.accuracy.mean >= one.accuracy.mean)


def test_of_two_that_are_equal_in_both_one_is_on_the_front():
    assert len(front([point("a", 0.9, ms=1), point("b", 0.9, ms=1)], "ms")) == 1


@pytest.mark.parametrize(
    ("costs", "axis"),
    [
        ([{"latency_1": 1.0, "macs": 5.0}, {"latency_1": 2.0, "macs": 9.0}], "latency of one image, ms"),
        ([{"latency_1": 1.0, "macs": 5.0}, {"macs": 9.0}], "multiply–adds per image"),
        ([{"latency_1": 1.0}, {}], "parameters"),
    ],
)
def test_the_axis_is_the_first_cost_that_all_know(tmp_path, costs, axis):
    points = [point(str(i), 0.9 + i / 100, **cost) for i, cost in enumerate(costs)]
    assert plot_pareto(points, tmp_path) == tmp_path / "pareto.svg"
    assert f"<!-- {axis} -->" in (tmp_path / "pareto.svg").read_text()


def test_a_cost_can_be_chosen_and_those_that_do_not_know_it_are_left_out(tmp_path):
    points = [point("a", 0.9, latency_1=1.0), point("b", 0.92, latency_1=3.0), point("c", 0.93)]
    plot_pareto(points, tmp_path, cost="latency_1", name="mine")
    drawn = (tmp_path / "mine.svg").read_text()
    assert "<!-- b -->" in drawn and "<!-- c -->" not in drawn
    assert plot_pareto(points[2:], tmp_path, cost="latency_1") is None and plot_pareto([], tmp_path) is None


def test_the_machine_stands_at_the_axis_of_a_latency(tmp_path):
    on = {"device": "cpu (x86_64)", "kind": "cpu", "threads": 2}
    points = [
        Point(name, "student", Summary(0.9, None, 1), {"latency_1": ms}, on) for name, ms in (("a", 1.0), ("b", 2.0))
    ]
    plot_pareto(points, tmp_path)
    assert "<!-- latency of one image, ms, on cpu (x86_64), 2 threads -->" in (tmp_path / "pareto.svg").read_text()


@pytest.mark.parametrize(("seed", "count"), list(enumerate([4, 12, 20, 36])))
def test_names_cover_neither_names_nor_points_nor_bars_however_many_stand_close(
    tmp_path, figures, monkeypatch, seed, count
):
    """Networks in clumps, as those of a sweep that cost the same: the picture grows until all names have room."""
    monkeypatch.setattr(style, "lay_out", lay_out)
    rng = np.random.default_rng(seed)
    costs = rng.choice([1.0, 1.02, 4.0, 9.0], size=count) * (1 + 0.02 * rng.random(count))
    roles = rng.choice(["student", "baseline", "teacher"], size=count)
    points = [
        Point(f"{role} resnet8x4 loss=[kd,crd] loss.crd.weight=0.{i}"[: rng.integers(12, 60)], str(role),
              Summary(0.9 + 0.004 * rng.random(), 0.002 * rng.random(), 3), {"latency_1": float(cost)})
        for i, (cost, role) in enumerate(zip(costs, roles, strict=True))
    ]  # fmt: skip
    plot_pareto(points, tmp_path)
    figure, axes = figures[0], figures[0].axes[0]
    FigureCanvasAgg(figure).draw()
    boxes = np.array([Text.get_window_extent(text).extents for text in axes.texts])
    assert len(boxes) == count
    accuracies = np.array([[100 * (p.accuracy.mean + s * p.accuracy.std) for s in (-1, 1)] for p in points])
    ends = [axes.transData.transform(np.stack([costs, accuracies[:, s]], 1)) for s in (0, 1)]
    bars = np.hstack([ends[0] - [1, 0], ends[1] + [1, 0]])
    legend = axes.get_legend().get_window_extent().extents
    assert not (overlap(boxes, boxes) & ~np.eye(count, dtype=bool)).any()
    assert not overlap(boxes, np.vstack([bars, legend])).any()
    frame = axes.get_window_extent().extents
    assert (boxes[:, :2] >= frame[:2]).all() and (boxes[:, 2:] <= frame[2:] + 1).all()
    assert (figure.get_figheight() > 4.6) == (count == 36)


def test_the_baseline_of_several_runs_is_one_with_all_of_its_seeds(tmp_path):
    def of(role, seeds, **more):
        return networks_of([made(tmp_path, role, seed, right=80 + seed, **more) for seed in seeds])

    few, many, others = of("baseline", (0, 1)), of("baseline", (3, 4)), of("baseline", (0, 1), T=2)
    student = of("student", (0,))
    groups = [("alone", "baseline", few), ("more", "baseline", many), ("student", "student", student),
              ("another", "baseline", others), ("all", "baseline", [*many, *of("baseline", (0, 2))])]  # fmt: skip
    once = merged(groups)
    assert [(label, sorted(m.seed for m in networks)) for label, _, networks in once] == [
        ("alone", [0, 1, 2, 3, 4]), ("student", [0]), ("another", [0, 1])
    ]  # fmt: skip


def test_a_dollar_in_a_name_is_no_mathematics_and_equal_numbers_draw_equal_bytes(tmp_path):
    points = [point("a$_{b}$", 0.9, latency_1=1.0), point("b", 0.92, latency_1=30.0)]
    plot_pareto(points, tmp_path, name="one")
    plot_pareto(points, tmp_path, name="two")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    ElementTree.parse(tmp_path / "one.svg")


def test_a_network_of_no_multiply_adds_is_drawn(tmp_path):
    points = [point("a", 0.9, macs=0.0), point("b", 0.92, macs=5e6)]
    assert plot_pareto(points, tmp_path) == tmp_path / "pareto.svg"


def test_a_long_name_is_shortened_so_that_the_picture_keeps_its_room(tmp_path, recwarn):
    typed = "student small loss=[kd,crd] loss.crd.weight=0.8 recipe.lr=0.05 transfer.fraction=0.25 T="
    points = [point(f"{typed}{T}", 0.9 + T / 100, latency_1=float(T)) for T in (1, 2, 4)]
    plot_pareto(points, tmp_path)
    assert not [str(w.message) for w in recwarn if "constrained_layout" in str(w.message)]
    drawn = (tmp_path / "pareto.svg").read_text()
    assert "<!-- student small loss=[kd,…ansfer.fraction=0.25 T=4 -->" in drawn
