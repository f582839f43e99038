"""Standard output and standard error that never fail: what they cannot show is replaced or dropped."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import Any


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
