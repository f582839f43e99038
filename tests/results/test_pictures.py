"""Pictures hold all that is drawn into them, in each of their files, and can be read on light and on dark pages."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from kdrun.evaluation.calibration import reliability
from kdrun.results.plots import narrow
from kdrun.results.plots.classes import plot_confusion
from kdrun.results.plots.gallery import Card, plot_cards
from kdrun.results.plots.reliability import plot_reliability
from kdrun.results.plots.style import COLOURS, INK, ON_COLOUR, PAPER, SKY, STYLE, dark_of, dark_style, drawing, save

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@pytest.mark.parametrize("names", [FASHION, ["a", "b"], [f"a rather long name {k}" for k in range(30)]], ids=len)
def test_no_title_and_no_label_of_a_confusion_is_cut_off(tmp_path, beyond, names):
    roles = {
        role: SimpleNamespace(parts=[1], confusion=lambda: np.eye(len(names)) * 100, row=SimpleNamespace(role=role))
        for role in ("teacher", "baseline", "student")
    }
    plot_confusion(roles, names, tmp_path)
    assert len(beyond) == 2 and max(beyond.values()) <= 0, beyond


def contrast(one, other):
    """Return the contrast ratio of WCAG 2."""
    light = []
    for colour in (one, other):
        parts = [part / 255 for part in bytes.fromhex(colour[1:])]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        light.append(float(np.dot(linear, (0.2126, 0.7152, 0.0722))) + 0.05)
    return max(light) / min(light)


def test_lines_and_names_can_be_read_on_light_and_on_dark_pages():
    used = {colour for colour, _, _ in STYLE.values()}
    assert len(used) == len({dark_of(colour) for colour in used}) == 7  # as many on a dark page
    for colour in used:
        least = 3 if colour == SKY[0] else 4.5  # nothing is written in that one
        assert contrast(colour, PAPER[0]) >= least and contrast(dark_of(colour), PAPER[1]) >= 4.5, colour
    assert contrast(*(INK[1], PAPER[1])) >= 7
    assert dark_of("#808080") == "#808489" and dark_of("#123456") == "#123456"
    assert dark_of(ON_COLOUR) == ON_COLOUR


def test_a_picture_turns_dark_but_not_the_numbers_on_an_image_and_is_the_same_to_the_byte(tmp_path, monkeypatch):
    monkeypatch.setenv("KDRUN_REPORT", "png")
    for name in ("one", "two"):
        with drawing() as plt:
            figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
            left.plot([0, 1], [0, 1.23456789], color=STYLE["teacher"][0])
            right.imshow([[0.0, 1.0]], cmap="cividis")
            right.text(0, 0, "7", color="white")
            save(figure, tmp_path, name)
    for form in ("one.svg", "one-narrow.svg", "one.png"):
        assert (tmp_path / form).read_bytes() == (tmp_path / form.replace("one", "two")).read_bytes()
    svg = (tmp_path / "one.svg").read_text()
    assert "@media screen and (prefers-color-scheme: dark)" in svg and "<metadata>" not in svg
    assert f'[style*="stroke: #00805d"] {{ stroke: {COLOURS["#00805d"]} !important }}' in svg
    assert 'style="fill: #fffffe"' in svg and "fffffe" not in dark_style(svg)
    assert not re.search(r' d="[^"]*\.\d{3}', svg)
    width = re.search(r'width="([\d.]+)pt"', (tmp_path / "one-narrow.svg").read_text())
    assert float(width[1]) == pytest.approx(72 * narrow.WIDTH)


def test_the_numbers_of_a_logarithmic_axis_are_not_broken_in_the_narrow_form():
    with drawing() as plt:
        figure, panels = plt.subplots(2, 3, figsize=(9, 4), sharey="row")
        for axes in panels[1]:
            axes.semilogy([0, 1], [0.001, 10.0])
        narrow.arrange(figure)
        numbers = [label.get_text() for axes in figure.axes[3:] for label in axes.get_yticklabels()]
        assert any("10^{-1}" in number for number in numbers) and not any("\n" in number for number in numbers)


def test_a_gallery_of_long_names_is_not_cut_off_and_its_names_stay_beneath_their_image(tmp_path, beyond, monkeypatch):
    names = [f"a rather long name of kind number {k}" for k in range(3)]
    p = {name: np.roll([0.4, 0.32, 0.28], k) for k, name in enumerate(["teacher", "baseline", "student"])}
    cards = [Card(99_990 + k, np.zeros((8, 8, 3), np.uint8), 0, p) for k in range(6)]
    texts = []
    plot = Figure.legend
    monkeypatch.setattr(Figure, "legend", lambda figure, *a, **k: texts.append(figure) or plot(figure, *a, **k))
    plot_cards(
        {"only the student is right": cards, "only the baseline is right": cards[:1]}, names, tmp_path, "changed"
    )
    assert len(beyond) == 2 and max(beyond.values()) <= 0.01, beyond
    below = [axes for axes in texts[0].findobj(lambda a: hasattr(a, "texts") and hasattr(a, "get_xlim")) if axes.texts]
    assert len(below) == 7
    for axes in below:
        assert all(t.get_window_extent().x1 < axes.get_window_extent().x1 + 8 for t in axes.texts)


def test_a_bin_of_few_images_looks_other_than_one_of_many(tmp_path, figures):
    """Of 3,133 images 3 are half as sure and 130 a little less sure than the rest."""
    rng = np.random.default_rng(0)
    sure = np.repeat([0.55, 0.9, 0.99], [3, 130, 3000])
    logits = np.stack([np.log(sure), np.log(1 - sure)], 1)
    labels = (rng.random(len(sure)) > sure).astype(int)
    part = SimpleNamespace(reliability=reliability(logits, labels))
    student = SimpleNamespace(parts=[part], row=SimpleNamespace(role="student"), summary=lambda key: 0.01)
    plot_reliability({"student": student}, tmp_path)
    above, below = figures[0].axes
    few, some, many = sorted(above.patches, key=lambda bar: bar.get_x())
    assert few.get_hatch() and few.get_facecolor()[:3] == (1, 1, 1)
    assert not some.get_hatch() and not many.get_hatch()
    share = np.log([13, 300]) / np.log(313.3)
    assert [bar.get_alpha() for bar in (some, many)] == pytest.approx(0.15 + 0.7 * share)
    right = [float((labels[sure == one] == 0).mean()) for one in (0.55, 0.9, 0.99)]
    assert [bar.get_height() for bar in (few, some, many)] == pytest.approx(right)
    assert sorted(bar.get_height() for bar in below.patches if bar.get_height()) == [3, 130, 3000]
    assert below.get_yscale() == "log" and below.get_ylim()[0] < 1


def test_the_narrow_form_leaves_out_a_line_of_panels_that_is_empty():
    import matplotlib.pyplot as plt

    from kdrun.results.plots.narrow import arrange

    figure, grid = plt.subplots(3, 6, figsize=(12, 6))
    for axes in [*grid[:, 4:].flatten(), *grid[1]]:
        axes.set_axis_off()
    grid[0, 0].set_title("first")
    grid[2, 1].set_title("last")
    arrange(figure)
    rows = {axes.get_subplotspec().rowspan.start for axes in figure.axes}
    assert len(figure.axes) == 8 and rows == set(range(len(rows)))
    plt.close(figure)
