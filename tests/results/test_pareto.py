"""The picture of accuracy over cost: the front, the axis, and names that do not cover one another."""

import itertools
import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.text import Text

from kdrun.results.plots import pareto
from kdrun.results.plots.pareto import Point, front, plot_pareto
from kdrun.results.statistics import Summary


def point(label, accuracy, role="student", **costs):
    return Point(label, role, Summary(accuracy, 0.004, 3), {"parameters": 1e6, **costs})


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
    assert plot_pareto(points, tmp_path) == tmp_path / "pareto.png"
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


def test_names_cover_neither_names_nor_points_even_where_many_stand_close(tmp_path, monkeypatch):
    """A dozen networks, some almost on top of another: no two names share a pixel, and none covers a point."""
    kept = {}

    def keep(figure, axes, points, cost, line):
        label(figure, axes, points, cost, line)
        figure.canvas.draw()
        kept["texts"] = [Text.get_window_extent(text) for text in axes.texts]
        kept["points"] = [axes.transData.transform((p.costs[cost], 100 * p.accuracy.mean)) for p in points]
        kept["frame"] = axes.get_window_extent()

    label = pareto._label
    monkeypatch.setattr(pareto, "_label", keep)
    points = [
        point(
            f"student resnet8x4 loss={i}",
            0.90 + 0.0004 * (i % 3) + 0.01 * (i % 2),
            latency_1=1.0 + 0.03 * (i % 4) + 0.4 * (i > 7),
        )
        for i in range(12)
    ]
    plot_pareto(points, tmp_path)
    texts = kept["texts"]
    assert len(texts) == 12
    for one, other in itertools.combinations(texts, 2):
        assert not (one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1)
    for box, (x, y) in itertools.product(texts, kept["points"]):
        assert not (box.x0 < x < box.x1 and box.y0 < y < box.y1)
    assert all(kept["frame"].x0 <= b.x0 and b.x1 <= kept["frame"].x1 + 1 for b in texts)


def test_a_dollar_in_a_name_is_no_mathematics_and_equal_numbers_draw_equal_bytes(tmp_path):
    points = [point("a$_{b}$", 0.9, latency_1=1.0), point("b", 0.92, latency_1=30.0)]
    plot_pareto(points, tmp_path, name="one")
    plot_pareto(points, tmp_path, name="two")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    ElementTree.parse(tmp_path / "one.svg")


def test_a_network_of_no_multiply_adds_is_drawn(tmp_path):
    points = [point("a", 0.9, macs=0.0), point("b", 0.92, macs=5e6)]
    assert plot_pareto(points, tmp_path) == tmp_path / "pareto.png"


def test_a_long_name_is_shortened_so_that_the_picture_keeps_its_room(tmp_path, recwarn):
    typed = "student small loss=[kd,crd] loss.crd.weight=0.8 recipe.lr=0.05 transfer.fraction=0.25 T="
    points = [point(f"{typed}{T}", 0.9 + T / 100, latency_1=float(T)) for T in (1, 2, 4)]
    plot_pareto(points, tmp_path)
    assert not [str(w.message) for w in recwarn if "constrained_layout" in str(w.message)]
    drawn = (tmp_path / "pareto.svg").read_text()
    assert "<!-- student small loss=[kd,…ansfer.fraction=0.25 T=4 -->" in drawn
