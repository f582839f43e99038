"""A sweep's picture: lines over a number, points over choices, a heat map over two numbers."""

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from kdrun.results import cost as costs
from kdrun.results.plots.style import STYLE
from kdrun.results.plots.sweep import plot_sweep
from kdrun.results.sweep.sweep import Sweep, every_lane
from tests.results.given import artifact, seeds_of, sweep, sweep_rows, two_students


@pytest.fixture
def drawn(figures):
    """Draw a sweep and give its axes."""

    def draw(folder):
        assert plot_sweep(every_lane(folder), folder) == folder / "sweep.svg"
        return list(figures[-1].axes)

    return draw


def lines(axes):
    """The data of lines by their labels."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def test_a_sweep_s_picture_has_a_form_for_a_telephone_and_on_request_one_for_text_processors(temperatures, monkeypatch):
    plot_sweep([Sweep(temperatures)], temperatures)
    assert all("<svg" in (temperatures / f"sweep{form}.svg").read_text() for form in ("", "-narrow"))
    assert not (temperatures / "sweep.png").exists()
    monkeypatch.setenv("KDRUN_REPORT", "png")
    plot_sweep([Sweep(temperatures)], temperatures)
    assert (temperatures / "sweep.png").read_bytes()[:4] == b"\x89PNG"


def test_long_names_of_cells_are_told_apart_and_leave_no_title_cut_off(tmp_path, cell, beyond):
    cells = [
        ([f"transfer.fraction={fraction}", f"recipe.epochs={n}", f"loss={loss}"], cell([90 + n], 0.9 + n / 100))
        for fraction, n, loss in ((0.01, 1, "kd"), (0.1, 2, "kl"))
    ]
    folder = sweep(tmp_path, cells)
    plot_sweep([Sweep(folder)], folder)
    assert set(beyond) == {"sweep.svg", "sweep-narrow.svg"} and max(beyond.values()) <= 0.01, beyond
    drawn = (folder / "sweep.svg").read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("0.01, 1, kd", "0.1, 2, kl")), "values alone: the keys say what"
    assert "<!-- transfer.fraction, -->" in drawn and "<!-- recipe.epochs, loss -->" in drawn


def test_one_numeric_key_is_drawn_on_validation_which_chooses_and_on_test_with_the_baseline_in_both(
    temperatures, drawn, figures
):
    val, test = drawn(temperatures)
    assert [axes.get_title(loc="left") for axes in (val, test)] == [
        "validation, which chooses",
        "test, which is reported",
    ]
    on_val, on_test = lines(val), lines(test)
    assert on_val["student"] == ([1, 2, 4, 8], pytest.approx([91, 95, 94, 92]))
    assert on_test["student"] == ([1, 2, 4, 8], pytest.approx([91 + 1 / 3, 94, 96 + 1 / 3, 92 + 2 / 3]))
    assert on_val["baseline"][1] == pytest.approx([90, 90]) and on_test["baseline"][1] == pytest.approx([91, 91])
    assert on_val["teacher"][1] == pytest.approx([90, 90]) and on_test["teacher"][1] == pytest.approx([97, 97])
    for axes in (val, test):
        assert lines(axes)["best by validation"][0] == [2, 2]
        assert axes.get_xscale() == "log" and axes.get_xlabel() == "T"
        assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "4", "8"]
    assert val.get_ylim() == test.get_ylim(), "heights can be compared"
    (legend,) = figures[0].legends
    assert [t.get_text() for t in legend.get_texts()] == ["student", "baseline", "teacher", "best by validation"]


def test_choices_are_drawn_as_a_line_of_points_each_with_their_names(tmp_path, cell, drawn):
    cells = [(["loss=kd"], cell([93, 94], 0.92)), (["loss=a$b_c$"], cell([92, 94], 0.95))]
    val, test = drawn(sweep(tmp_path, cells))
    assert [text.get_text() for text in val.get_yticklabels()] == ["kd", r"a\$b_c\$"] and val.yaxis_inverted()
    assert [list(axes.containers[0].lines[0].get_xdata()) for axes in (val, test)] == [
        pytest.approx([92, 95]), pytest.approx([93.5, 93])
    ]  # fmt: skip
    assert lines(val)["baseline"][0] == pytest.approx([90, 90]) and lines(test)["baseline"][0] == [90.5, 90.5]


def test_a_sweep_without_validation_has_one_panel_and_each_student_a_line_of_panels(tmp_path, cell, drawn):
    cells = [([f"T={T}"], cell([93, 94], None, baselines=(90, 91))) for T in (1, 2)]
    (only,) = drawn(sweep(tmp_path / "a", cells))
    assert "student" in lines(only) and only.get_title(loc="left") == ""
    cells = []
    for T, right in ((1, 90), (2, 93)):
        folders, cast = two_students(tmp_path / "store", ([right], [right + 2]), T=T)
        cells.append(([f"T={T}"], folders))
    panels = drawn(sweep(tmp_path / "b", cells, cast=cast))
    heads = [axes.get_title(loc="left") for axes in panels]
    assert heads == ["small: validation, which chooses", "test, which is reported",
                     "tiny: validation, which chooses", "test, which is reported"]  # fmt: skip


def framed(axes):
    """The cells of a heat map, (row, column), that are framed."""
    boxes = [
        patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_gid() == "above the baseline"
    ]
    return {(round(box.get_y() + box.get_height() / 2), round(box.get_x() + box.get_width() / 2)) for box in boxes}


def test_two_numeric_keys_are_a_heat_map_of_validation_with_the_cells_above_the_baseline_framed(tmp_path, cell, drawn):
    vals = {(1, 0.5): 0.90, (1, 0.9): 0.93, (4, 0.5): 0.95}
    cells = [([f"T={T}", f"alpha={a}"], cell([93, 94], val)) for (T, a), val in vals.items()]
    folder = sweep(tmp_path, [*cells, (["T=4", "alpha=0.9"], ("failed", "boom"))])
    axes, bar = drawn(folder)
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["90.00\n± 0.00", "93.00\n± 0.00", "★ 95.00\n± 0.00", "–"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("T", "alpha")
    assert framed(axes) == {(0, 1), (1, 0)}, "0.90 is the baseline's own accuracy"
    assert axes.get_title(loc="left") == (
        "★ best by validation; framed: above the baseline (90.00 ± 0.00) on validation"
    )
    assert bar.get_ylabel() == "student validation accuracy, % (± std over seeds)"
    (level,) = [line for line in bar.lines if to_hex(line.get_color()) == STYLE["baseline"][0]]
    assert level.get_ydata()[0] == pytest.approx(90)


def test_where_each_cell_has_a_baseline_of_its_own_it_is_drawn_and_held_against_that(tmp_path, drawn):
    store = tmp_path / "store"
    teacher = artifact(store, "teacher", right=97)

    def own(lr, alpha, base, val):
        return [teacher, *seeds_of(store, "baseline", [90, 91], val=base, alpha=lr),
                *seeds_of(store, "student", [93, 94], val=val, alpha=alpha, T=lr)]  # fmt: skip

    grid = {(0.1, 0.5): (0.91, 0.92), (0.1, 0.9): (0.91, 0.90), (0.2, 0.5): (0.95, 0.94), (0.2, 0.9): (0.95, 0.96)}
    cells = [([f"recipe.lr={lr}", f"alpha={a}"], own(lr, a, *vals)) for (lr, a), vals in grid.items()]
    axes, bar = drawn(sweep(tmp_path / "a", cells))
    assert framed(axes) == {(0, 0), (1, 1)} and "above its baseline" in axes.get_title(loc="left") and not bar.lines
    val, _ = drawn(sweep(tmp_path / "b", [([f"recipe.lr={lr}"], own(lr, 0.7, *grid[lr, 0.5])) for lr in (0.1, 0.2)]))
    assert lines(val)["baseline"][1] == pytest.approx([91, 95]) and lines(val)["student"][1] == pytest.approx([92, 94])


def test_several_teachers_are_said_once_with_their_ensemble_and_drawn_as_it(tmp_path, cell, drawn):
    store = tmp_path / "store"
    teachers = [artifact(store, "teacher", model=model, right=right) for model, right in (("a", 95), ("b", 97))]
    teachers.append(artifact(store, "assistant", model="c", right=94))
    cells = [([f"T={T}"], [*teachers, *cell([93, 94], val)[1:]]) for T, val in ((1, 0.92), (2, 0.95))]
    folder = sweep(tmp_path, cells)
    rows = sweep_rows(folder)
    assert [row["T"] for row in rows] == [
        "teacher a", "teacher b", "ensemble 2 teachers", "assistant c", "baseline small", "1", "2"
    ]  # fmt: skip
    _, test = drawn(folder)
    assert f"{lines(test)['teacher'][1][0]:.2f}" == rows[2]["test %"]


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
