"""One table, rendered for the terminal, Markdown, CSV, LaTeX and JSON; what stands in a cell is escaped there."""

from __future__ import annotations

import csv
import io
import re
import shutil
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kdrun.results.statistics import Summary


@dataclass(frozen=True)
class Table:
    """Column headings, rows of text, a title said first and notes said last."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    notes: Sequence[str] = field(default_factory=tuple)

    def to_text(self) -> str:
        """For a terminal: aligned columns; where they are too wide, first the air is let out, then the last wraps."""
        width = max(80, shutil.get_terminal_size((120, 24)).columns)
        cells = [[_one_line(c) for c in row] for row in [self.columns, *self.rows]]
        gap = "  "
        if _total(cells, gap) > width:
            cells = [[c.replace(" ± ", "±") for c in row] for row in cells]
        if _total(cells, gap) > width:
            gap = " "
        widths = _widths(cells)
        last = max(width - sum(widths[:-1]) - len(gap) * (len(widths) - 1), 20)
        widths[-1] = min(widths[-1], last)
        right = self._right()
        lines = []
        for number, row in enumerate(cells):
            for k, tail in enumerate(textwrap.wrap(row[-1], last) or [""]):
                head = row[:-1] if k == 0 else [""] * (len(row) - 1)
                parts = [_pad(c, w, r) for c, w, r in zip([*head, tail], widths, right, strict=True)]
                lines.append(gap.join(parts).rstrip())
            if number == 0:
                lines.append(gap.join("─" * w for w in widths))
        notes = [line for note in self.notes for line in textwrap.wrap(_one_line(note), width, subsequent_indent="  ")]
        title = textwrap.wrap(_one_line(self.title), width)
        return "\n".join([*title, *([""] if title else []), *lines, *([""] if notes else []), *notes])

    def to_markdown(self) -> str:
        """For a README or an issue: pipes, tags and line ends in cells are escaped."""
        lines = ["| " + " | ".join(_markdown(c) for c in row) + " |" for row in [self.columns, *self.rows]]
        lines.insert(1, "| " + " | ".join("---:" if right else "---" for right in self._right()) + " |")
        notes = [f"- {_markdown(note)}" for note in self.notes]
        title = [_markdown(self.title), ""] if self.title else []
        return "\n".join([*title, *lines, *([""] if notes else []), *notes]) + "\n"

    def to_csv(self) -> str:
        """For a spreadsheet: what it would run as a formula is kept as text; numbers stay numbers."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in [self.columns, *self.rows]:
            writer.writerow([_csv(cell) for cell in row])
        return text.getvalue()

    def to_latex(self) -> str:
        """For a paper: a booktabs tabular, title and notes as comments; LaTeX's special characters are escaped."""
        shape = "".join("r" if right else "l" for right in self._right())
        comments = [f"% {_one_line(line)}" for line in [self.title, *self.notes] if line]
        heading, *body = (" & ".join(_latex(c) for c in row) + r" \\" for row in [self.columns, *self.rows])
        begin, end = rf"\begin{{tabular}}{{{shape}}}", r"\end{tabular}"
        return "\n".join([*comments, begin, r"\toprule", heading, r"\midrule", *body, r"\bottomrule", end, ""])

    def to_json(self) -> dict[str, Any]:
        """For a program: the cells as they are shown, by column."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "columns": list(self.columns), "rows": rows, "notes": list(self.notes)}

    def _right(self) -> list[bool]:
        """Say which columns hold numbers, which are aligned to the right."""
        return [all(_looks_numeric(_one_line(row[i])) for row in self.rows) for i in range(len(self.columns))]


def per_cent(value: Summary | float | None, *, signed: bool = False) -> str:
    """Write a share in [0, 1] as per cent with 2 decimals: `93.05 ± 0.21`; without ± where n=1, – where unknown."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    if isinstance(value, Summary):
        spread = "" if value.std is None else f" ± {100 * value.std:.2f}"
        return f"{100 * value.mean:{sign}.2f}{spread}"
    return f"{100 * value:{sign}.2f}"


def code(text: str) -> str:
    """Write text as Markdown code, whatever backticks stand in it."""
    text = _one_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _one_line(text: str) -> str:
    """Keep a cell on its line, and control characters (escape sequences) away from the terminal."""
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in " ".join(str(text).split()))


def _columns(text: str) -> int:
    """Count the terminal columns that a text takes: two for each East Asian wide character, none for an accent."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(_columns, column)) for column in zip(*cells, strict=True)]


def _total(cells: Sequence[Sequence[str]], gap: str) -> int:
    widths = _widths(cells)
    return sum(widths) + len(gap) * (len(widths) - 1)


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - _columns(text))
    return space + text if right else text + space


_NUMERIC = re.compile(r"[+\-−]?\d[\d.,]*( ?(±.*|%|[KMG]|[kMGT]?B|s|min.*|h.*)|–\d+)?")


def _looks_numeric(text: str) -> bool:
    return text in ("", "–") or bool(_NUMERIC.fullmatch(text))


def _markdown(text: str) -> str:
    escaped = _one_line(text).replace("\\", "\\\\").replace("|", "\\|")
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([*_`~$\[\]])", r"\\\1", escaped)


_CSV_NUMBER = re.compile(r"[+\-]?\d[\d.,]*(e[+\-]?\d+)?( ± [\d.]+)?")
_CSV_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def _csv(text: str) -> str:
    text = str(text)
    # blanks before the sign hide it from us, not from every spreadsheet; a tab or line end alone starts one too
    starts = text[:1] in ("\t", "\r", "\n") or text.lstrip().startswith(_CSV_FORMULA)
    return "'" + text if starts and not _CSV_NUMBER.fullmatch(text) else text


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "{\\textquotedbl}", "[": "{[}", "]": "{]}", "*": "{*}",  # \\[ and \\* are commands
    "±": r"$\pm$", "–": "--", "−": "$-$", "²": "$^2$", "·": r"$\cdot$", "×": r"$\times$", "‖": r"$\Vert$",
    "∑": r"$\sum$", "Σ": r"$\sum$", "→": r"$\to$", "★": r"$\star$", "…": r"\ldots{}", "\ufffd": "?",
    **{letter: rf"${name}$" for letter, name in zip("αβγδελμστΔ", (
        r"\alpha", r"\beta", r"\gamma", r"\delta", r"\epsilon", r"\lambda", r"\mu", r"\sigma", r"\tau", r"\Delta",
    ), strict=True)},
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in _one_line(text))
