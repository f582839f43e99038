"""The common look of all pictures: readable in print and by the colour-blind, and reproducible to the byte."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STYLE = {  # part or role -> colour (Okabe & Ito's palette), marker, line
    "test": ("#0072B2", "o", "-"),
    "val": ("#56B4E9", "^", "--"),
    "student": ("#0072B2", "o", "-"),
    "baseline": ("#D55E00", "s", "-."),
    "teacher": ("#009E73", "D", ":"),
    "assistant": ("#CC79A7", "v", "--"),
    "direct": ("#E69F00", "P", "--"),
    "generation": ("#E69F00", "P", "--"),
    "ensemble": ("#000000", "X", ":"),
}
OTHERS = ("#000000", "*", "-")  # of any other role
LOOK: Any = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "kdrun"}

OTHER_SCRIPTS = ("Noto Sans CJK JP", "Noto Sans Arabic", "Noto Sans Devanagari", "Arial Unicode MS", "Yu Gothic",
                 "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei")  # fmt: skip


@contextmanager
def drawing() -> Iterator[Any]:
    """Yield pyplot in this look, without a display, and close what was drawn; matplotlib is imported here."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    others = plt.get_fignums()  # of a caller in Python
    with plt.rc_context(LOOK | {"font.family": _fonts()}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the picture shows a box instead
        try:
            yield plt
        finally:
            for number in set(plt.get_fignums()).difference(others):
                plt.close(number)


def _fonts() -> list[str]:
    """Return matplotlib's own font, followed by installed fonts for the scripts that it lacks."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)]


def save(figure: Any, folder: Path, name: str) -> Path:
    """Write NAME.png and NAME.svg, without a date, and return the path of the first."""
    figure.draw_without_rendering()  # square axes get their layout in the second drawing only; the first would be cut
    for suffix in ("svg", "png"):
        figure.savefig(folder / f"{name}.{suffix}", dpi=150, metadata={"Date": None} if suffix == "svg" else None)
    return folder / f"{name}.png"


def plain(text: str) -> str:
    """Escape $ in a user's word, which matplotlib would read as mathematics."""
    return text.replace("$", r"\$")
