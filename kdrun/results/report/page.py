"""The page: sections of tables, pictures and text, rendered to one self-contained HTML file."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrun.results.tables import Exact, Table

NUMBER = re.compile(r"([+\-−]?\d[\d,]*(?:\.\d+)?)(?: ([KMG]|[kMG]B|min|h)\b)?")
UNITS = {"K": 1e3, "M": 1e6, "G": 1e9, "kB": 1e3, "MB": 1e6, "GB": 1e9, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Picture:
    """A picture file, embedded into the page; `alt` describes it for those who do not see it."""

    file: Path
    alt: str

    @property
    def source(self) -> str:
        """The file as a data URI; an SVG beside the PNG is preferred, being sharper and mostly smaller."""
        drawn = self.file.with_suffix(".svg")
        file, kind = (drawn, "svg+xml") if drawn.exists() else (self.file, "png")
        return f"data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


@dataclass(frozen=True)
class Code:
    """Text that is shown verbatim, to be copied."""

    text: str


Block = Table | Picture | Code | str


@dataclass(frozen=True)
class Section:
    """A part of the page with its heading; a `folded` one shows only its heading until it is opened."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """The content of a page: title, verdict, sections, warnings, and how it was made."""

    title: str
    verdict: Sequence[str]
    sections: Sequence[Section]
    warnings: Sequence[str] = ()
    made: str = ""
    facts: Sequence[tuple[str, str]] = ()

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
        pages.filters |= {"kind": lambda block: type(block).__name__.lower(), "order": _order, "shown": _shown}
        return pages.get_template("page.html.jinja").render(page=self)


def _order(cell: str) -> str:
    """Return the sort key of a cell: its exact number, else the first number in its text, else nothing."""
    if isinstance(cell, Exact) and cell.parts:
        return repr(float(next(iter(cell.parts.values()))))
    match = NUMBER.match(cell.removeprefix("< ").removeprefix("["))
    if not match:
        return ""
    return repr(float(match[1].replace(",", "").replace("−", "-")) * UNITS.get(match[2], 1))


def _shown(text: str) -> str:
    """Replace control characters and changes of the writing direction."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))
