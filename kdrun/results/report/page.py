"""The page: sections of tables, pictures and text, rendered to one self-contained HTML file."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from kdrun.results.tables import Exact, Table

NUMBER = re.compile(r"([+\-−]?\d[\d,]*(?:\.\d+)?)(?: ([KMG]|[kMG]B|min|h)\b)?")
CONSTANT = ("dataset", "model", "loss")  # columns that are written once, above the table, if all rows share their value
LEADING = (
    "test %",
    "student %",
    "Δ base",
    "Δ",
)  # columns that follow the name of a row, so that a telephone shows them
NAMES = ("role", "run", "class", "images")  # headings of columns that name a row
UNITS = {"K": 1e3, "M": 1e6, "G": 1e9, "kB": 1e3, "MB": 1e6, "GB": 1e9, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Picture:
    """A picture file, embedded into the page; `alt` describes it for those who do not see it."""

    file: Path
    alt: str

    @property
    def source(self) -> str | Markup:
        """The file as a data URI."""
        if self.file.suffix == ".svg":
            return _embedded(self.file)
        return f"data:image/png;base64,{base64.b64encode(self.file.read_bytes()).decode()}"

    @property
    def narrow(self) -> str | Markup:
        """The form for a narrow screen as a data URI; empty if there is none."""
        drawn = self.file.with_name(f"{self.file.stem}-narrow.svg")
        return _embedded(drawn) if drawn.exists() else ""


@dataclass(frozen=True)
class Code:
    """Text that is shown verbatim, to be copied."""

    text: str


class Link(str):
    """The text of a cell that links to another page, whose relative address is `href`."""

    href: str

    def __new__(cls, text: str, href: str) -> Link:
        made = super().__new__(cls, text)
        made.href = href
        return made


@dataclass(frozen=True)
class Searchable:
    """A table with a search box, and for each column in `choices` a menu of its values."""

    table: Table
    choices: Sequence[str]


Block = Table | Searchable | Picture | Code | str


@dataclass(frozen=True)
class Section:
    """A part of the page with its heading; a `folded` one shows only its heading until it is opened."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """The content of a page: title, verdict, sections, warnings, and how it was made.

    `name` tells pages of the same title apart in a browser's tabs.
    """

    title: str
    verdict: Sequence[str]
    sections: Sequence[Section]
    warnings: Sequence[str] = ()
    made: str = ""
    facts: Sequence[tuple[str, str]] = ()
    command: str = ""
    name: str = ""

    def to_html(self) -> str:
        """Return the page as HTML, in which all text is escaped."""
        from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

        pages = Environment(
            loader=PackageLoader("kdrun.results", "report"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        pages.filters |= {
            "kind": lambda block: type(block).__name__.lower(),
            "href": lambda cell: getattr(cell, "href", ""),
            "arranged": arranged,
            "order": _order,
            "shown": _shown,
            "whole": _whole,
        }
        return pages.get_template("page.html.jinja").render(page=self)


def arranged(table: Table) -> tuple[str, Table]:
    """Return a sentence on what all rows of a table share, and the table without that, its main numbers first."""
    by_column = dict(zip(table.columns, zip(*table.rows, strict=True), strict=True)) if len(table.rows) > 1 else {}
    constant = {name: cells[0] for name in CONSTANT if len(set(cells := by_column.get(name, "ab"))) == 1}
    shared = f"In all rows: {', '.join(f'{name} {value}' for name, value in constant.items())}" if constant else ""
    table = table.without(*constant)
    shares = [i for i, name in enumerate(table.columns) if name.endswith(" %")]
    lead = 1 if table.columns[0] in NAMES else min(shares, default=len(table.columns))  # swept settings come first
    first = [*range(lead), *(table.columns.index(name) for name in LEADING if name in table.columns[lead:])]
    order = [*first, *(i for i in range(len(table.columns)) if i not in first)]
    rows = [[row[i] for i in order] for row in table.rows]
    return shared, replace(table, columns=[table.columns[i] for i in order], rows=rows)


def _embedded(drawn: Path) -> Markup:
    """Return an SVG as a percent-encoded data URI: shorter than base64, and without spaces, as srcset requires."""
    text = re.sub(r"^.*?<svg", "<svg", drawn.read_text(encoding="utf-8"), count=1, flags=re.DOTALL)
    text = re.sub(r">\s+<", "><", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    text = re.sub(r"([;:,{}]) +", r"\1", re.sub(r' d="[^"]*"', _packed, text).replace('"', "'"))
    return Markup("data:image/svg+xml," + quote(text, safe="/:;,=()!*@'+-"))  # what is quoted needs no escape


def _packed(path: re.Match[str]) -> str:
    """Return a path's attribute without the spaces that it does not need: `M 1 2 L 3 4` as `M1,2L3,4`."""
    return ' d="' + re.sub(" ?([MLCQHVSTAZz]) ?", r"\1", path[0][4:]).replace(" ", ",")


def _order(cell: str) -> str:
    """Return the sort key of a cell: its exact number, else the first number in its text, else nothing."""
    if isinstance(cell, Exact) and cell.parts:
        return repr(float(next(iter(cell.parts.values()))))
    match = NUMBER.match(cell.removeprefix("< ").removeprefix("["))
    if not match:
        return ""
    return repr(float(match[1].replace(",", "").replace("−", "-")) * UNITS.get(match[2], 1))


def _whole(text: str) -> str:
    """Keep a number together with its unit; lines may break before ± and within an interval."""
    return re.sub(r"(?<!,) (?!±)", "\u00a0", text)


def _shown(text: str) -> str:
    """Replace control characters and changes of the writing direction."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))
