"""Pictures hold all that is drawn into them, in each of their files."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from kdrun.results.plots.classes import plot_confusion

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@pytest.mark.parametrize("names", [FASHION, ["a", "b"], [f"a rather long name {k}" for k in range(30)]], ids=len)
def test_no_title_and_no_label_of_a_confusion_is_cut_off(tmp_path, monkeypatch, names):
    beyond = {}

    def saved(figure, path, **options):
        save(figure, path, **options)
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()  # as it was saved
        beyond[path.suffix] = max(-drawn.x0, -drawn.y0, drawn.x1 - width, drawn.y1 - height)

    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", saved)
    roles = {
        role: SimpleNamespace(parts=[1], confusion=lambda: np.eye(len(names)) * 100, row=SimpleNamespace(role=role))
        for role in ("teacher", "baseline", "student")
    }
    plot_confusion(roles, names, tmp_path)
    assert set(beyond) == {".svg", ".png"} and max(beyond.values()) <= 0, beyond
