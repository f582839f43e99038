"""The layout of text in columns on a terminal: widths of characters, and rows of several lines."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from kdrun.console import wrap


def column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of the widest cell of each column."""
    return [max(text_width(row[i]) for row in rows) for i in range(len(rows[0]))]


def text_width(text: str) -> int:
    """Return the width of text on a terminal: two for a wide character, none for a combining one."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def total_width(widths: Sequence[int]) -> int:
    """Return the width of a line with two spaces between columns."""
    return sum(widths) + 2 * (len(widths) - 1)


def row_lines(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    """Return the lines of a row, as many as its longest cell needs."""
    cells = [wrap(c, max(w, 1)) for c, w in zip(row, widths, strict=True)]
    lines = []
    for k in range(max(1, *(len(cell) for cell in cells))):
        texts = [cell[k] if k < len(cell) else "" for cell in cells]
        space = [" " * (w - text_width(t)) for t, w in zip(texts, widths, strict=True)]
        padded = [s + t if n else t + s for t, s, n in zip(texts, space, numeric, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return lines
