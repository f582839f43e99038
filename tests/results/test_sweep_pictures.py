"""A sweep's picture: lines over a number, points over choices, a heat map over two numbers."""

import pytest

from kdrun.results import cost as costs
from kdrun.results.plots.sweep import plot_sweep
from kdrun.results.sweep.sweep import Sweep
from tests.results.given import artifact, seeds_of, sweep, sweep_rows


def _drawn(folder, monkeypatch):
    """Draw a sweep and give its axes."""
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "close", lambda figure: None)
    assert plot_sweep([Sweep(folder)], folder) == folder / "sweep.png"
    figure = plt.gcf()
    monkeypatch.undo()
    axes = list(figure.axes)
    plt.close(figure)
    return axes


def _is_a_picture(folder):
    return (folder / "sweep.png").read_bytes()[:4] == b"\x89PNG" and "<svg" in (folder / "sweep.svg").read_text()


def test_one_numeric_key_is_drawn_as_lines_with_bands(temperatures, monkeypatch):
    (axes,) = _drawn(temperatures, monkeypatch)
    assert _is_a_picture(temperatures)
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["student test"].get_xdata()) == [1, 2, 4, 8]
    assert list(lines["student test"].get_ydata()) == pytest.approx([91 + 1 / 3, 94, 96 + 1 / 3, 92 + 2 / 3])
    assert list(lines["student val"].get_ydata()) == pytest.approx([91, 95, 94, 92])
    assert list(lines["teacher test"].get_ydata()) == [97, 97]
    assert list(lines["best by validation"].get_xdata()) == [2, 2]
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "T"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "4", "8"]


def test_choices_are_drawn_as_points_with_their_names(tmp_path, cell, monkeypatch):
    cells = [(["loss=kd"], cell([93, 94], 0.92)), (["loss=a$b_c$"], cell([92, 94], 0.95))]
    folder = sweep(tmp_path, cells)
    (axes,) = _drawn(folder, monkeypatch)
    assert _is_a_picture(folder)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["kd", r"a\$b_c\$"]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["student val", "student test", "baseline test", "teacher test", "best by validation"]


def test_two_numeric_keys_are_a_heat_map_of_validation(tmp_path, cell, monkeypatch):
    vals = {(1, 0.5): 0.90, (1, 0.9): 0.93, (4, 0.5): 0.95}
    cells = [([f"T={T}", f"alpha={a}"], cell([93], val)) for (T, a), val in vals.items()]
    folder = sweep(tmp_path, [*cells, (["T=4", "alpha=0.9"], ("failed", "boom"))])
    axes, bar = _drawn(folder, monkeypatch)
    assert _is_a_picture(folder)
    assert [text.get_text() for text in axes.texts] == ["90.00", "93.00", "95.00", "–"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("T", "alpha")
    assert axes.get_title() == "best by validation: T=4, alpha=0.5"
    assert bar.get_ylabel() == "student validation accuracy, %"


def test_several_teachers_are_said_once_with_their_ensemble_and_drawn_as_it(tmp_path, cell, monkeypatch):
    store = tmp_path / "store"
    teachers = [artifact(store, "teacher", model=model, right=right) for model, right in (("a", 95), ("b", 97))]
    teachers.append(artifact(store, "assistant", model="c", right=94))
    cells = [([f"T={T}"], [*teachers, *cell([93, 94], val)[1:]]) for T, val in ((1, 0.92), (2, 0.95))]
    folder = sweep(tmp_path, cells)
    rows = sweep_rows(folder)
    assert [row["T"] for row in rows] == [
        "teacher a", "teacher b", "ensemble 2 teachers", "assistant c", "baseline small", "1", "2"
    ]  # fmt: skip
    (axes,) = _drawn(folder, monkeypatch)
    level = next(line for line in axes.lines if line.get_label() == "teacher test")
    assert f"{level.get_ydata()[0]:.2f}" == rows[2]["test %"]


def test_a_sweep_over_teachers_holds_each_cell_against_its_own(tmp_path, cell, monkeypatch):
    """The baseline, which all cells share, has no teacher of its own."""
    monkeypatch.setattr(costs, "operations", lambda folder: None)
    store = tmp_path / "store"
    sizes = {"a": 168_420, "b": 1_684_200}
    teachers = {name: artifact(store, "teacher", model=name, parameters=size) for name, size in sizes.items()}
    small = seeds_of(store, "baseline", [90, 91])
    cells = [([f"teacher={name}"], [teacher, *small, *seeds_of(store, "student", [93, 94], T=k, val=0.9 + k / 100)])
             for k, (name, teacher) in enumerate(teachers.items())]  # fmt: skip
    folder = sweep(tmp_path, cells, config={"columns": ["cost"]})
    assert [(row["teacher"], row["× smaller"]) for row in sweep_rows(folder)] == [
        ("baseline small", "–"), ("a", "10"), ("b", "100")
    ]  # fmt: skip
