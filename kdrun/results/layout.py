"""The layout of text in columns on a terminal: widths of characters, and wrapping."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Sequence


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


class _Wrapper(textwrap.TextWrapper):
    """Wraps text between words, and a setting that is too long for a line after its = and its dots."""

    def _split(self, text: str) -> list[str]:  # textwrap means it to be overridden
        chunks: list[str] = super()._split(text)
        return [
            part for c in chunks for part in (_WITHIN.split(c) if "=" in c and len(c) > self.width else [c]) if part
        ]


# an interval, a number with its spread, and a letter with its value
_TOGETHER = re.compile(r"\[[+\-−\d.]+, [+\-−\d.]+\]|[\d.]+ ± [\d.]+|\b\w [=<] [\d.]+")
_WITHIN = re.compile(r"(?<==)|(?<=\.)(?=[a-z])")


def wrap(text: str, width: int, subsequent_indent: str = "") -> list[str]:
    """Return text in lines of this width; names of runs, paths, intervals and n = 3 stay whole."""
    joined = _TOGETHER.sub(lambda match: match[0].replace(" ", "\xa0"), text)
    lines = _Wrapper(width, subsequent_indent=subsequent_indent, break_on_hyphens=False).wrap(joined)
    return [line.replace("\xa0", " ") for line in lines]


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
