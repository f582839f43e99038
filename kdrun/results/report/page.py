"""The page: sections of tables, pictures and words, rendered to one file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdrun.results.tables import Exact, Table

NUMBER = re.compile(r"([+\-−]?\d[\d,]*(?:\.\d+)?)(?: ([KMG]|[kMG]B|min|h)\b)?")
UNITS = {"K": 1e3, "M": 1e6, "G": 1e9, "kB": 1e3, "MB": 1e6, "GB": 1e9, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Picture:
    """A drawing beside the page, which is put into it; `alt` says what it shows to those who do not see it."""

    file: Path
    alt: str

    @property
    def source(self) -> str:
        """The file as a data URI; the SVG beside a PNG is sharper and mostly smaller."""
        drawn = self.file.with_suffix(".svg")
        file, kind = (drawn, "svg+xml") if drawn.exists() else (self.file, "png")
        return f"data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


@dataclass(frozen=True)
class Code:
    """Words to be typed or copied as they are."""

    text: str


Block = Table | Picture | Code | str


@dataclass(frozen=True)
class Section:
    """A part of the page with its heading; one that is `folded` shows its heading alone until it is opened."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """What a page says: its name, what comes first of all, warnings, sections, and how it was made."""

    title: str
    verdict: Sequence[str]
    sections: Sequence[Section]
    warnings: Sequence[str] = ()
    made: str = ""
    facts: Sequence[tuple[str, str]] = field(default=())

    def to_html(self) -> str:
        """Render to HTML; whatever stands in names, cells and reasons is escaped."""
        from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

        pages = Environment(
            loader=PackageLoader("kdrun.results", "report"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        pages.filters |= {"kind": _kind, "order": _order, "shown": _shown}
        return pages.get_template("page.html.jinja").render(page=self)


def _kind(block: Block) -> str:
    return type(block).__name__.lower()


def _order(cell: str) -> str:
    """Return what a column is sorted by: a cell's exact number, the first one that it shows, or nothing."""
    if isinstance(cell, Exact) and cell.parts:
        return repr(float(next(iter(cell.parts.values()))))
    match = NUMBER.match(cell.removeprefix("< ").removeprefix("["))
    if not match:
        return ""
    return repr(float(match[1].replace(",", "").replace("−", "-")) * UNITS.get(match[2], 1))


def _shown(text: str) -> str:
    """Leave out what no page should obey: control characters and changes of the writing direction."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))
