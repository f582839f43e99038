"""What all pictures share: readable in print and by the colour-blind, the same bytes from the same numbers."""

from __future__ import annotations

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
LOOK: Any = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "kdrun"}


@contextmanager
def drawing() -> Iterator[Any]:
    """Give pyplot in this look, without a screen; matplotlib is imported here, and figures are closed at the end."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(LOOK):
        try:
            yield plt
        finally:
            plt.close("all")


def save(figure: Any, folder: Path, name: str) -> Path:
    """Write NAME.png and NAME.svg, which hold no date, and give the first."""
    for suffix in ("svg", "png"):
        figure.savefig(folder / f"{name}.{suffix}", dpi=150, metadata={"Date": None} if suffix == "svg" else None)
    return folder / f"{name}.png"


def plain(text: str) -> str:
    """Keep a $ of a user's word from being read as mathematics."""
    return text.replace("$", r"\$")
