"""The terminal: output that never fails, lines that fit, a log handler that keeps bars intact, sizes and times."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import select
import shutil
import sys
import textwrap
from contextvars import ContextVar
from typing import Any, TextIO

# The prefix of this cell's lines if several cells share the terminal; bars would overwrite each other then.
CELL: ContextVar[str] = ContextVar("cell", default="")


class _Unfailing(io.FileIO):
    """A file that takes what can no longer be written: a pipe was closed, a disk is full, a terminal went away.

    From then on its number stands for /dev/null, for worker processes and libraries as well.
    """

    def write(self, content: Any) -> int:
        """Write, wait while a non-blocking terminal or pipe is full, and pretend to have written what is lost."""
        try:
            while (count := super().write(content)) is None:
                select.select([], [self], [])
            return count
        except OSError as error:
            to_nowhere(self.fileno())
            if self.fileno() == 1 and not isinstance(error, BrokenPipeError):  # `kdrun runs | head` is no mishap
                with contextlib.suppress(OSError):
                    os.write(
                        2, f"kdrun: standard output cannot be written ({error.strerror}); the rest goes on\n".encode()
                    )
            return memoryview(content).nbytes


class _Unbuffered(io.BufferedWriter):
    """Hands on all that is written at once, as with python -u."""

    def write(self, content: Any) -> int:
        """Write and flush."""
        count = super().write(content)
        self.flush()
        return count


def unfailing() -> None:
    """Let standard output and standard error never fail: what they cannot show is replaced or dropped."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed before kdrun began, so that the next file would get its number
            to_nowhere(number)
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        elif _number(stream) != number:
            continue  # it was replaced, as tests do
        raw = _Unfailing(number, "wb", closefd=False)
        text = io.TextIOWrapper(
            _Unbuffered(raw) if stream.write_through else io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors="replace" if number == 1 else "backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, text)


def _number(stream: Any) -> int | None:
    """Return the number of the file that a stream of text writes to; None if it writes to none."""
    with contextlib.suppress(OSError, ValueError):
        return int(stream.fileno()) if isinstance(stream, io.TextIOWrapper) else None
    return None


def to_nowhere(number: int) -> None:
    """Let a file's number stand for /dev/null."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


class BarHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes log records above the tqdm bar on the terminal, in one write each."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; lines that a bar already shows go to the log file only."""
        if getattr(record, "shown_by_bar", False) and sys.stderr.isatty() and not CELL.get():
            return
        try:
            from tqdm import tqdm

            stream = sys.stderr if record.levelno >= logging.ERROR else self.stream
            text = fitted(CELL.get() + self.format(record), stream)
            tqdm.write(text + self.terminator, file=stream, end="")
            stream.flush()
        except Exception:
            self.handleError(record)


class LogFile(logging.FileHandler):
    """A log file that stops nothing when it cannot be written, as on a full disk; says so once."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Print one sentence for a file that cannot be written; anything else is a bug, and keeps its traceback."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.failed:
            self.failed = True
            print(f"kdrun: {self.baseFilename} cannot be written ({error.strerror or error})", file=sys.stderr)


def bars_off() -> bool | None:
    """Return tqdm's `disable`: no bars if several cells share the terminal, nor without one (as None means)."""
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


def fitted(text: str, stream: TextIO) -> str:
    """Return text as lines that end between words, if it goes to a terminal; elsewhere each line stays whole."""
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    lines: list[str] = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip(" -")))  # below the words of an entry, not below its dash
        lines += wrap(line, width, indent) if len(line) > width else [line]
    return "\n".join(lines)


def refusal(*problems: str) -> SystemExit:
    """Print everything that is wrong, and return the exit to raise."""
    text = f"kdrun: {problems[0]}"
    if len(problems) > 1:
        heading = f"kdrun: {len(problems)} things are wrong with this command:"
        text = "\n".join([heading, *(f"  - {problem}" for problem in problems)])
    print(fitted(text, sys.stderr), file=sys.stderr)
    return SystemExit(2)
