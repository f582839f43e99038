"""The common look of all pictures: readable in print and by the colour-blind, and reproducible to the byte."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdrun.files import write_atomic
from kdrun.results.plots.kept import now
from kdrun.results.plots.margins import lay_out
from kdrun.results.plots.narrow import arrange

INK, PAPER = ("#000000", "#e6e9ec"), ("#ffffff", "#1b2026")  # text and background: on light and on dark pages
BLUE, SKY, ORANGE = ("#0072b2", "#5db7ec"), ("#2f96d0", "#a9d9f7"), ("#c25400", "#ff9a57")
GREEN, PINK, YELLOW = ("#00805d", "#35c799"), ("#b3528a", "#e8a0c8"), ("#946900", "#f0bc45")
# Okabe & Ito's palette, darker where lines and text on white need it; on dark pages SVG files show the second of each
COLOURS = dict([INK, PAPER, BLUE, SKY, ORANGE, GREEN, PINK, YELLOW])
STYLE = {  # part or role -> colour, marker, line
    "test": (BLUE[0], "o", "-"),
    "val": (SKY[0], "^", "--"),
    "student": (BLUE[0], "o", "-"),
    "baseline": (ORANGE[0], "s", "-."),
    "teacher": (GREEN[0], "D", ":"),
    "assistant": (PINK[0], "v", "--"),
    "direct": (YELLOW[0], "P", "--"),
    "generation": (YELLOW[0], "P", "--"),
    "ensemble": (INK[0], "X", ":"),
}
OTHERS = (INK[0], "*", "-")  # of any other role
ON_COLOUR = "#fffffe"  # white text on a colour: no grey, so that it stays white on a dark page
LOOK: Any = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "kdrun"}

OTHER_SCRIPTS = ("Noto Sans CJK JP", "Noto Sans Arabic", "Noto Sans Devanagari", "Arial Unicode MS", "Yu Gothic",
                 "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei")  # fmt: skip


@contextmanager
def drawing() -> Iterator[Any]:
    """Yield pyplot in this look, without a display, and close what was drawn; matplotlib is imported here."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    others = plt.get_fignums()  # a Python caller's own figures
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


def picture(folder: Path, name: str, draw: Callable[[Any], None]) -> Path:
    """Write NAME.svg and NAME-narrow.svg, the picture for a telephone, and return the path of the first.

    `draw` receives pyplot and ends with `save`; it is not called if an earlier command drew the same picture.
    """
    if not now().copy(name, folder):
        with drawing() as plt:
            draw(plt)
        now().keep(name, folder)
    return folder / f"{name}.svg"


def save(figure: Any, folder: Path, name: str, place: Callable[[], object] = lambda: None) -> None:
    """Write a figure in all its forms, with report=png as NAME.png too. The files have no date.

    `place` is called for each form, after its layout and before it is drawn.
    """
    _keep_on_images(figure)
    lay_out(figure)
    place()
    if now().png:
        figure.savefig(folder / f"{name}.png", dpi=150)
    _write_svg(figure, folder / f"{name}.svg")
    arrange(figure)
    place()
    _write_svg(figure, folder / f"{name}-narrow.svg")


def _write_svg(figure: Any, path: Path) -> None:
    """Write a figure as an SVG that turns dark if its reader prefers dark pages, small enough to embed in a page."""
    figure.savefig(path, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = re.sub(r' (d|x|y)="([^"]*)"', _short, path.read_text(encoding="utf-8"))
    write_atomic(path, text.replace("</style>", f"\n{dark_style(text)}</style>", 1).encode())


def _short(attribute: re.Match[str]) -> str:
    """Return an attribute with its coordinates rounded to two decimals, a hundredth of a point."""
    value = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), attribute[2])
    return f' {attribute[1]}="{" ".join(value.split())}"'


def dark_style(svg: str) -> str:
    """Return the style sheet of a picture's colours on a dark page.

    It replaces the colours in the picture, so that a program without style sheets shows the light picture. A colour
    that is neither in COLOURS nor grey stays.
    """
    rules = [f"svg {{ fill: {INK[1]} }}"]  # matplotlib writes no colour for black text
    for light in sorted(set(re.findall(r"#[0-9a-f]{6}\b", svg))):
        if (dark := dark_of(light)) != light:
            rules.append(f'[style*="fill: {light}"], [fill="{light}"] {{ fill: {dark} !important }}')
            rules.append(f'[style*="stroke: {light}"] {{ stroke: {dark} !important }}')
    lines = "\n".join(rules)
    return f"@media screen and (prefers-color-scheme: dark) {{\n{lines}\n}}\n"


def dark_of(light: str) -> str:
    """Return a colour's counterpart on a dark page; greys lie between ink and paper as they do on a light one."""
    if light in COLOURS or not light[1:3] == light[3:5] == light[5:7]:
        return COLOURS.get(light, light)
    share = int(light[1:3], 16) / 255
    ink, paper = (bytes.fromhex(dark[1:]) for _, dark in (INK, PAPER))
    return "#" + bytes(round(i + share * (p - i)) for i, p in zip(ink, paper, strict=True)).hex()


def _keep_on_images(figure: Any) -> None:
    """Change text on opaque images to colours that dark pages do not replace: an image stays as it is."""
    from matplotlib.colors import to_hex

    for axes in figure.axes:
        if any(image.cmap(0.0)[3] == 1 for image in axes.images):
            for text in (one for one in axes.texts if one.get_transform() == axes.transData):  # others lie beside it
                value = int(to_hex(text.get_color())[1:], 16)
                text.set_color(f"#{value ^ 1:06x}")  # with the last bit flipped, black, white and greys are no greys


def plain(text: str) -> str:
    """Escape $ in a user's word, which matplotlib would read as mathematics."""
    return text.replace("$", r"\$")


def shortened(text: str, longest: int) -> str:
    """Cut the middle out of a name that is too long: names mostly differ at their ends."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[: longest - half - 1]}…{text[-half:]}"
