"""One table, rendered for the terminal, Markdown, CSV and LaTeX; whatever stands in a cell is escaped there."""

from __future__ import annotations

import csv
import io
import re
import shutil
import textwrap
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
        """For a terminal: aligned columns; the last one is wrapped to the terminal's width."""
        width = max(80, shutil.get_terminal_size((120, 24)).columns)
        cells = [[_one_line(c) for c in row] for row in [self.columns, *self.rows]]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        room = width - sum(widths[:-1]) - 2 * (len(widths) - 1)
        last = max(room, 20)
        widths[-1] = min(widths[-1], last)
        numeric = [all(_looks_numeric(row[i]) for row in cells[1:]) for i in range(len(self.columns))]
        lines = []
        for number, row in enumerate(cells):
            wrapped = textwrap.wrap(row[-1], last) or [""]
            for k, tail in enumerate(wrapped):
                head = row[:-1] if k == 0 else [""] * (len(row) - 1)
                parts = [_pad(c, w, n) for c, w, n in zip([*head, tail], widths, numeric, strict=True)]
                lines.append("  ".join(parts).rstrip())
            if number == 0:
                lines.append("  ".join("─" * w for w in widths))
        notes = [line for note in self.notes for line in textwrap.wrap(note, width, subsequent_indent="  ")]
        title = textwrap.wrap(self.title, width)
        return "\n".join([*title, *([""] if title else []), *lines, *([""] if notes else []), *notes])

    def to_markdown(self) -> str:
        """For a README or an issue: pipes and line ends in cells are escaped."""
        rows = [self.columns, ["---"] * len(self.columns), *self.rows]
        lines = ["| " + " | ".join(_markdown(c) for c in row) + " |" for row in rows]
        notes = [f"- {_markdown(note)}" for note in self.notes]
        title = [_markdown(self.title), ""] if self.title else []
        return "\n".join([*title, *lines, *([""] if notes else []), *notes]) + "\n"

    def to_csv(self) -> str:
        """For a spreadsheet: what one would run as a formula is kept as text."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in [self.columns, *self.rows]:
            writer.writerow([_csv(cell) for cell in row])
        return text.getvalue()

    def to_latex(self) -> str:
        """For a paper: a booktabs tabular; LaTeX's special characters are escaped."""
        shape = "l" + "r" * (len(self.columns) - 1)
        comments = [f"% {_one_line(line)}" for line in [self.title, *self.notes] if line]
        body = [" & ".join(_latex(c) for c in row) + r" \\" for row in self.rows]
        heading = " & ".join(_latex(c) for c in self.columns) + r" \\"
        return "\n".join(
            [*comments, rf"\begin{{tabular}}{{{shape}}}", r"\toprule", heading, r"\midrule", *body, r"\bottomrule",
             r"\end{tabular}", ""]
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "columns": list(self.columns), "rows": rows, "notes": list(self.notes)}


def per_cent(value: Summary | float | None, *, signed: bool = False) -> str:
    """Write a share in [0, 1] as per cent with 2 decimals: `93.05 ± 0.21`, without ± where n=1, – where unknown."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    if isinstance(value, Summary):
        spread = "" if value.std is None else f" ± {100 * value.std:.2f}"
        return f"{100 * value.mean:{sign}.2f}{spread}"
    return f"{100 * value:{sign}.2f}"


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def _looks_numeric(text: str) -> bool:
    return text == "" or text == "–" or bool(re.match(r"^[+\-−]?\d[\d.,]*( ?(±.*|%|[KMG]|[kMG]?B|s|min.*|h.*))?$", text))


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def _markdown(text: str) -> str:
    escaped = _one_line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([*_`\[\]])", r"\\\1", escaped) if not re.fullmatch(r"-+", escaped) else escaped


def _csv(text: str) -> str:
    text = str(text)
    number = re.fullmatch(r"[+\-]?\d[\d.,]*(e[+\-]?\d+)?( ± [\d.]+)?", text)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") and not number else text


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "−": "$-$", "²": "$^2$",
    "·": r"$\cdot$", "×": r"$\times$", "‖": r"$\Vert$", "Δ": r"$\Delta$", "α": r"$\alpha$", "★": r"$\star$", "…": r"\ldots{}",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in _one_line(text))
