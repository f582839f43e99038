"""The terminal: wrapped lines, colours, a status line while something runs, log handlers, sizes and times."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TextIO

from kdrun.caller import CALLER

# The prefix of this cell's lines if several cells share the terminal; bars would overwrite each other then.
CELL: ContextVar[str] = ContextVar("cell", default="")


DETAIL = 15  # the level of lines that a terminal shows with verbose=true; the log file has them
RESULT = 25  # the level of lines that a sweep shows too: a training or a cell has ended
logging.addLevelName(DETAIL, "DETAIL")
logging.addLevelName(RESULT, "RESULT")


class BarHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes log records above the tqdm bar on the terminal, in one write each."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; lines that a bar already shows go to the log file only."""
        if getattr(record, "shown_by_bar", False) and sys.stderr.isatty() and not CELL.get():
            return
        if record.levelno >= logging.ERROR and (caller := CALLER.get()) is not None:
            caller.refuse(record.getMessage(), record.exc_info[1] if record.exc_info else None)
            return
        try:
            from tqdm import tqdm

            stream = sys.stderr if record.levelno >= logging.ERROR else self.stream
            text = fitted(CELL.get() + self.format(record), stream)
            style = next((style for level, style in LEVELS if record.levelno >= level), "")
            text = painted(text, style, stream) if style else with_role(text, stream)
            tqdm.write(text + self.terminator, file=stream, end="")
            stream.flush()
        except Exception:
            self.handleError(record)


class LogFile(logging.FileHandler):
    """A log file that does not stop a command if it cannot be written, as on a full disk, but reports this once."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Print one sentence for a file that cannot be written; anything else is a bug, and keeps its traceback."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.failed:
            self.failed = True
            print(f"kdrun: cannot write to {self.baseFilename} ({error.strerror or error})", file=sys.stderr)


# ECMA-48 codes. The roles' colours match those in the plots, from the 256 terminal colours, and are legible on black
# and on white.
ROLES = {"teacher": "38;5;29", "baseline": "38;5;166", "student": "38;5;32"}
BOLD, RED, YELLOW = "1", "31", "33"
LEVELS = ((logging.ERROR, RED), (logging.WARNING, YELLOW))


def coloured(stream: TextIO) -> bool:
    """Return whether a stream shows colours: it is a capable terminal, and NO_COLOR is not set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, style: str, stream: TextIO) -> str:
    """Return text with each of its lines in a style, where the stream shows colours; call it after wrapping."""
    if not style or not coloured(stream):
        return text
    return "\n".join(f"\x1b[{style}m{line}\x1b[0m" if line else line for line in text.split("\n"))


def with_role(text: str, stream: TextIO) -> str:
    """Return text with the role at its beginning, if there is one, in that role's colour; call it after wrapping."""
    lead = re.match(r"(?:\[\d+\] | +)?(teacher|baseline|student)\b", text)
    if lead is None:
        return text
    start, end = lead.span(1)
    return text[:start] + painted(lead[1], ROLES[lead[1]], stream) + text[end:]


APPEARS_SECONDS = 0.4  # shorter activities show no line
_busy: list[str] = []  # nested activities, the innermost last


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """Show on a terminal what is being done, with the elapsed time; erase the line at the end.

    Nested inside another call, this text replaces the outer one. Without a terminal, nothing is shown.
    """
    with contextlib.nullcontext() if _busy or bars_off() or not sys.stderr.isatty() else _line():
        _busy.append(what)
        try:
            yield
        finally:
            _busy.pop()


@contextlib.contextmanager
def _line() -> Iterator[None]:
    """Show the last entry of `_busy` in a line, from a thread, because the main thread is busy."""
    done = threading.Event()

    def show() -> None:
        from tqdm import tqdm

        if done.wait(APPEARS_SECONDS):
            return
        shape = "{desc} … {elapsed}{bar}"  # {bar} makes tqdm cut the line to the width
        with tqdm(desc=" ".join(_busy[-1:]), bar_format=shape, leave=False, dynamic_ncols=True) as line:
            while not done.wait(0.5):
                line.set_description_str(" ".join(_busy[-1:]))

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def bars_off() -> bool | None:
    """Return tqdm's `disable`: True if several cells share the terminal, else None, which means off without one."""
    return True if CELL.get() else None


def seconds(value: float) -> str:
    """Return a duration for people: 0.8 s, 12.3 s, 4 min 05 s, 2 h 10 min."""
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} min"


def size(value: float) -> str:
    """Return a number of bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def count(value: float) -> str:
    """Return a count for people: 812, 175.0 K, 1.35 M."""
    if value < 1000:
        return f"{value:.0f}"
    return f"{value / 1e3:.1f} K" if value < 1e6 else f"{value / 1e6:.2f} M"


class _Wrapper(textwrap.TextWrapper):
    """Wraps text between words, and also after = and dots inside a setting that is too long for a line."""

    def _split(self, text: str) -> list[str]:  # textwrap documents this hook for subclasses
        chunks: list[str] = super()._split(text)
        return [
            part for c in chunks for part in (_WITHIN.split(c) if "=" in c and len(c) > self.width else [c]) if part
        ]


# not to be split: an interval, a number with its spread or unit, a letter with its value
_TOGETHER = re.compile(r"\[[+\-−\d.]+, [+\-−\d.]+\]|[\d.]+ ± [\d.]+|[\d.]+ (?:min \d+ )?s\b|\b\w [=<] [\d.]+")
_WITHIN = re.compile(r"(?<==)|(?<=\.)(?=[a-z])")


def wrap(text: str, width: int, subsequent_indent: str = "") -> list[str]:
    """Return text in lines of this width; names of runs, paths, intervals and n = 3 stay whole."""
    joined = _TOGETHER.sub(lambda match: match[0].replace(" ", "\xa0"), text)
    lines = _Wrapper(width, subsequent_indent=subsequent_indent, break_on_hyphens=False).wrap(joined)
    return [line.replace("\xa0", " ") for line in lines]


def fitted(text: str, stream: TextIO) -> str:
    """Return text wrapped between words for a terminal; for any other stream, return it unchanged."""
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    lines: list[str] = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip(" -")))  # align with the text of a list item, not with its dash
        lines += wrap(line, width, indent) if len(line) > width else [line]
    return "\n".join(lines)


def refusal(*problems: str) -> SystemExit:
    """Print everything that is wrong, and return the exit to raise."""
    text = f"kdrun: {problems[0]}"
    if len(problems) > 1:
        heading = f"kdrun: {len(problems)} problems with this command:"
        text = "\n".join([heading, *(f"  - {problem}" for problem in problems)])
    failure(text)
    return SystemExit(2)


def failure(text: str) -> None:
    """Print an error, or return it to a caller in Python."""
    if (caller := CALLER.get()) is not None:
        caller.refuse(text)
        return
    text = painted(fitted(text, sys.stderr), RED, sys.stderr)
    if _busy:  # write above the status line
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)
