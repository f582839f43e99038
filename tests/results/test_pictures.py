"""Pictures hold all that is drawn into them, in each of their files, and can be read on light and on dark pages."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from kdrun.results.plots import narrow
from kdrun.results.plots.classes import plot_confusion
from kdrun.results.plots.style import COLOURS, INK, PAPER, SKY, STYLE, dark_of, dark_style, drawing, save

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@pytest.mark.parametrize("names", [FASHION, ["a", "b"], [f"a rather long name {k}" for k in range(30)]], ids=len)
def test_no_title_and_no_label_of_a_confusion_is_cut_off(tmp_path, monkeypatch, names):
    beyond = {}

    def saved(figure, path, **options):
        savefig(figure, path, **options)
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()  # as it was saved
        beyond[path.suffix] = max(-drawn.x0, -drawn.y0, drawn.x1 - width, drawn.y1 - height)

    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", saved)
    roles = {
        role: SimpleNamespace(parts=[1], confusion=lambda: np.eye(len(names)) * 100, row=SimpleNamespace(role=role))
        for role in ("teacher", "baseline", "student")
    }
    plot_confusion(roles, names, tmp_path)
    assert set(beyond) == {".svg", ".png"} and max(beyond.values()) <= 0, beyond


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


def test_a_picture_turns_dark_but_not_the_numbers_on_an_image_and_is_the_same_to_the_byte(tmp_path):
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
