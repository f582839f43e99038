"""A table, rendered for the terminal, Markdown, CSV and LaTeX with its cells escaped, and how numbers are written.

The file is long because it has every format of a table.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kdrun.console import BOLD, painted, with_role, wrap
from kdrun.files import write_atomic
from kdrun.records import TableJson
from kdrun.results import evidence
from kdrun.results.layout import column_widths, row_lines, text_width, total_width
from kdrun.results.statistics import Paired, Summary
from kdrun.spec import finite

CHOSEN = "★"  # marks the chosen cell of a sweep
NARROWEST = 14  # characters; a column of text is not made narrower to fit the terminal
WHOLE_HEADING = 9  # characters; a longer heading may take two lines
FIRST_OUT = (  # columns that a narrow terminal leaves out, the least needed first
    "size", "train %", "agree %", "time", "memory", "p95 @1", "p95 @128", "epochs", "model", "params", "dataset",
    "verb", "loss", "p", "epoch", "gap %", "val %", "95%", "teacher %", "n", "status",
)  # fmt: skip
OF_WORDS = (  # columns of text, even if all of their cells are empty
    "typed", "lane", "model", "loss", "dataset", "on", "student", "class", "reason", "student takes it for",
)  # fmt: skip


class Exact(str):
    """The text of a cell with its exact numbers: each of `parts` is a column of the CSV.

    A part's name is added to the column's heading: {"": 97.59, "std": 0.42} under `test %` makes the columns
    `test %` and `test % std`.
    """

    parts: Mapping[str, float]

    def __new__(cls, text: str, parts: Mapping[str, float]) -> Exact:
        made = super().__new__(cls, text)
        made.parts = parts
        return made


def brief(value: str) -> str:
    """Shorten a number of many digits to four; the CSV has it whole."""
    try:
        return value if len(value) <= 10 or "." not in value else Exact(f"{float(value):.4g}", {"": float(value)})
    except ValueError:
        return value


class Sentences(str):
    """Text that keeps its sentences apart: in a table's title each begins a line."""

    parts: Sequence[str]

    def __new__(cls, parts: Sequence[str]) -> Sentences:
        made = super().__new__(cls, " ".join(parts))
        made.parts = parts
        return made


class Columns(NamedTuple):
    """Additional columns of a table: their headings, the cells of each row, and the notes that explain them."""

    headings: list[str]
    cells: list[list[str]]
    notes: list[str]


@dataclass(frozen=True)
class Table:
    """A title, column headings, rows of text, notes below, and sources, which only the files have.

    The first `leading` columns tell the rows apart, so a narrow terminal shows them too.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    notes: Sequence[str] = ()
    sources: Sequence[str] = ()
    leading: int = 1

    def to_text(self, whole: str = "--wide shows them", *, wide: bool = False) -> str:
        """Return the table for a terminal, with lines that fit.

        If it is too wide, columns of text are wrapped, the last first; if that is not enough, the columns of FIRST_OUT
        are left out in their order, and a note names them and, by `whole`, the place that has them. A number is never
        broken. With `wide`, the table is not fitted to the terminal.
        """
        width = max(40, shutil.get_terminal_size((100, 24)).columns)
        out: list[str] = []
        table, lines = self, self._lines(None if wide else width)
        for name in () if wide else FIRST_OUT:
            if max(map(text_width, lines)) <= width:
                break
            if name in table.columns[self.leading :]:
                out.append(name)
                table = table.without(name)
                lines = table._lines(width)
        left = [f"left out on {width} columns: {', '.join(out)}; {whole}"] if out else []
        notes = [line for n in [*left, *self.notes] for line in wrap(_one_line(n), width, subsequent_indent="  ")]
        titles = [line for sentence in self.titles for line in wrap(_one_line(sentence), width)]
        titles, lines = [painted(line, BOLD, sys.stdout) for line in titles], [_emphasised(line) for line in lines]
        blocks = [titles, lines if self.rows else [], notes]
        return "\n\n".join("\n".join(block) for block in blocks if block)

    def _lines(self, width: int | None) -> list[str]:
        """Return the lines of headings, rule and rows, fitted to a width as far as columns of text can be wrapped."""
        head, *body = ([_one_line(c) for c in row] for row in [self.columns, *self.rows])
        numeric = self.numeric
        widths = column_widths([head, *body])
        if width is not None and total_width(widths) > width:
            body = [[cell.replace(" ± ", "±") for cell in row] for row in body]
            words = [h if len(h) <= WHOLE_HEADING else max(h.split(), key=len, default="") for h in head]
            widths = column_widths([words, *body])
            last = len(head) - 1
            for column in [last, *sorted(range(1, last), key=lambda i: -widths[i]), 0]:
                if not numeric[column]:
                    # a row's name stays whole, so that it can be copied, even if the table is too wide then
                    whole = max(len(w) for row in body for w in row[0].split() or [""]) if column == 0 and body else 0
                    spare = widths[column] - max(NARROWEST, whole)
                    widths[column] -= max(0, min(spare, total_width(widths) - width))
        top = row_lines(head, widths, numeric)
        return [*top, "  ".join("─" * w for w in widths), *(n for row in body for n in row_lines(row, widths, numeric))]

    def to_markdown(self) -> str:
        """Return the table for a README or an issue, with Markdown and HTML escaped."""
        marks = ["---:" if n else ":---" for n in self.numeric]
        cells = [[markdown(c) for c in row] for row in [self.columns, *self.rows]]
        lines = ["| " + " | ".join(row) + " |" for row in [cells[0], marks, *cells[1:]]]
        lists = [[f"- {markdown(line)}" for line in below] for below in (self.notes, self.sources)]
        blocks = [*([markdown(line)] for line in self.titles), lines, *lists]
        return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"

    def to_csv(self) -> str:
        """Return the table for a spreadsheet: exact numbers, each in a column of its own; formulas are escaped."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        parts = [
            list(dict.fromkeys(p for row in self.rows if isinstance(cell := row[i], Exact) for p in cell.parts)) or [""]
            for i in range(len(self.columns))
        ]
        writer.writerow(_csv(f"{c} {p}".strip()) for c, names in zip(self.columns, parts, strict=True) for p in names)
        for row in self.rows:
            writer.writerow(value for cell, names in zip(row, parts, strict=True) for value in _values(cell, names))
        return text.getvalue()

    def to_latex(self) -> str:
        """Return the table for a paper: a booktabs tabular, with LaTeX's special characters escaped."""
        shape = "".join("r" if n else "l" for n in self.numeric)
        comments = [f"% {_one_line(line)}" for line in [*self.titles, *self.notes, *self.sources] if line]
        lines = [" & ".join(_latex(c) for c in row) + r" \\" for row in [self.columns, *self.rows]]
        # LaTeX would read [ or * at the beginning of a row as an argument of the line above
        head, *body = ["{}" + line if line[:1] in ("[", "*") else line for line in lines]
        return "\n".join(
            [*comments, rf"\begin{{tabular}}{{{shape}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule",
             r"\end{tabular}", ""]
        )  # fmt: skip

    def to_json(self) -> TableJson:
        """Return the table for a program, with the text of its cells."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": " ".join(self.titles), "columns": list(self.columns), "rows": rows, "notes": list(self.notes)}

    def without(self, *names: str) -> Table:
        """Return the table without the columns of these names."""
        kept = [i for i, name in enumerate(self.columns) if name not in names]
        rows = [[row[i] for i in kept] for row in self.rows]
        leading = sum(i < self.leading for i in kept)
        return Table([self.columns[i] for i in kept], rows, self.title, self.notes, self.sources, leading)

    def without_empty(self, *names: str) -> Table:
        """Return the table without those of the named columns that are empty."""
        empty = [
            name for i, name in enumerate(self.columns)
            if name in names and all(row[i] in ("", "–") for row in self.rows)
        ]  # fmt: skip
        return self.without(*empty)

    @property
    def titles(self) -> list[str]:
        """The sentences of the title."""
        return list(self.title.parts) if isinstance(self.title, Sentences) else [self.title] if self.title else []

    @property
    def numeric(self) -> list[bool]:
        """For each column whether it holds numbers, which are aligned to the right."""
        return [_numeric([row[i] for row in self.rows], name) for i, name in enumerate(self.columns)]


def _emphasised(line: str) -> str:
    """Return a line of a table as a terminal shows it: its role in colour, and the chosen cell's line bold."""
    return painted(line, BOLD, sys.stdout) if f" {CHOSEN} " in line else with_role(line, sys.stdout)


def write_tables(folder: Path, name: str, table: Table, below: str = "") -> None:
    """Write NAME.md, with the text `below` the table, NAME.csv and NAME.tex."""
    write_atomic(folder / f"{name}.md", (table.to_markdown() + below).encode())
    write_atomic(folder / f"{name}.csv", table.to_csv().encode())
    write_atomic(folder / f"{name}.tex", table.to_latex().encode())


def write_json(path: Path, content: object) -> None:
    """Write a JSON file; NaN and infinities become null."""
    write_atomic(path, (json.dumps(finite(content), indent=2, allow_nan=False) + "\n").encode())


def per_cent(value: Summary | float | None, *, signed: bool = False) -> str:
    """Write a share in [0, 1] in per cent with 2 decimals: `93.05 ± 0.21`, without ± if n=1, – if unknown."""
    return written(value, 2, signed=signed, unit=100)


def written(value: Summary | float | None, digits: int, *, signed: bool = False, unit: float = 1) -> str:
    """Write a number, or the mean ± standard deviation of several, times `unit` with this many decimals."""
    if value is None:
        return "–"
    mean, std = (value.mean, value.std) if isinstance(value, Summary) else (value, None)
    parts = {"": unit * mean} | ({} if std is None else {"std": unit * std})
    spread = "" if std is None else f" ± {unit * std:.{digits}f}"
    return Exact(f"{unit * mean:{'+' if signed else ''}.{digits}f}{spread}", parts)


def interval(low: float | None, high: float | None) -> str:
    """Write an interval of shares in signed per cent: `[-0.13, +1.98]`, – if unknown."""
    if low is None or high is None:
        return "–"
    return Exact(evidence.interval(low, high), {"low": 100 * low, "high": 100 * high})


def difference_cells(difference: Paired | None) -> list[str]:
    """Return the cells of a signed difference of shares and of its interval; – if there is none."""
    if difference is None:
        return ["–", "–"]
    return [per_cent(difference.mean, signed=True), interval(difference.low, difference.high)]


def p_cell(p: float | None) -> str:
    """Write a p-value; – if there is none."""
    return "–" if p is None else Exact(evidence.p_value(p).removeprefix("= "), {"": p})


_NUMERIC = re.compile(
    r"(|–|[+\-−]?\d[\d.,]*( ?± ?[\d.]+|–\d+| of \d+| ?%| [KM]| k?B| [MGT]B| s| min.*| h.*)?"
    r"|< ?[\d.]+|\[[+\-][\d.]+, [+\-][\d.]+\])"
)


def _numeric(cells: Sequence[str], name: str) -> bool:
    """Return whether a column of this name holds numbers; if it is empty, its name decides."""
    if all(c in ("", "–") for c in cells):
        return "–" in cells and name not in OF_WORDS
    return all(_NUMERIC.fullmatch(_one_line(c)) for c in cells)


def _one_line(text: str) -> str:
    """Replace line ends by spaces, and control characters by �."""
    line = " ".join(str(text).split())
    return line if line.isprintable() else "".join(c if c.isprintable() else "�" for c in line)


def markdown(text: str) -> str:
    """Escape Markdown and HTML, but only where they would act: `a_b`, `p < 0.05` and `[0, 1]` stay as they are."""
    text = re.sub(r"([\\|*`~$])", r"\\\1", _one_line(text))
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # inside of a word it has no meaning
    text = re.sub(r"\](?=[(\[:])", r"\\]", text)  # without it there is no link
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    return re.sub(r"<(?=\S)", "&lt;", text)


def _values(cell: str, names: Sequence[str]) -> list[str]:
    """Return one cell's columns of the CSV; text is in the first of them."""
    if isinstance(cell, Exact):
        return [_number(cell.parts[n]) if n in cell.parts else "" for n in names]
    return [_csv(cell), *[""] * (len(names) - 1)]


def _number(value: float) -> str:
    """Write a number in full, one of numpy's like one of Python's."""
    return str(value) if isinstance(value, int) else repr(round(float(value), 10))


def _csv(text: str) -> str:
    text = _one_line(text)
    if text == "–":
        return ""
    number = re.fullmatch(r"[+\-]?\d[\d.,]*(e[+\-]?\d+)?( ± [\d.]+)?", text)
    return "'" + text if text[:1] in ("=", "+", "-", "@") and not number else text


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$",
    "±": r"$\pm$", "–": "--", "−": "$-$", "²": "$^2$", "·": r"$\cdot$", "×": r"$\times$", "‖": r"$\Vert$",
    "Δ": r"$\Delta$", "α": r"$\alpha$", "ε": r"$\varepsilon$", "★": r"$\star$", "…": r"\ldots{}",
}  # fmt: skip


def _latex(text: str) -> str:
    text = re.sub(r"(?<!\w)-(?=\d)", "−", _one_line(text))  # a minus before a number, but a hyphen within a date
    return "".join(_LATEX.get(c, c) for c in text)
