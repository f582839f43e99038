"""Standard output and standard error that never fail: what they cannot show is replaced or dropped."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import Any


class _Unfailing(io.FileIO):
    """A file that drops what can no longer be written, because a pipe was closed, a disk is full, a terminal is gone.

    From then on its file descriptor refers to /dev/null, for worker processes and libraries as well.
    """

    def write(self, content: Any) -> int:
        """Write; wait while a non-blocking terminal or pipe is full, and report lost content as written."""
        try:
            while (count := super().write(content)) is None:
                select.select([], [self], [])
            return count
        except OSError as error:
            to_nowhere(self.fileno())
            if self.fileno() == 1 and not isinstance(error, BrokenPipeError):  # `kdrun runs | head` is no error
                with contextlib.suppress(OSError):
                    os.write(
                        2, f"kdrun: standard output cannot be written ({error.strerror}); the rest goes on\n".encode()
                    )
            return memoryview(content).nbytes


class _Unbuffered(io.BufferedWriter):
    """Writes everything through at once, as with python -u."""

    def write(self, content: Any) -> int:
        """Write and flush."""
        count = super().write(content)
        self.flush()
        return count


def unfailing() -> None:
    """Replace standard output and standard error by streams that never fail."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed before kdrun began: the next file to be opened would get its descriptor
            to_nowhere(number)
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        elif _number(stream) != number:
            continue  # something replaced it, as tests do
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
    """Return the descriptor of the file that a text stream writes to; None if it writes to none."""
    with contextlib.suppress(OSError, ValueError):
        return int(stream.fileno()) if isinstance(stream, io.TextIOWrapper) else None
    return None


def to_nowhere(number: int) -> None:
    """Let a file descriptor refer to /dev/null."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
