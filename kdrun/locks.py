"""Locks shared by several processes and users, which are freed when a process is killed, and a record of who holds one.

The holder writes its identity into FILE.json next to the lock file, and removes it when it releases the lock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from kdrun import process
from kdrun.console import seconds

POLL_SECONDS = 0.5  # between two calls of `waiting`


class Busy(Exception):
    """Another process holds the lock."""


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock."""

    pid: int
    host: str
    since: float  # seconds since the epoch, by its own clock

    def __str__(self) -> str:
        now = time.time()
        begun = time.localtime(self.since)
        clock = "%H:%M" if begun[:3] == time.localtime(now)[:3] else "%Y-%m-%d %H:%M"
        lasted = seconds(max(0.0, now - self.since))  # the clocks of two machines may disagree
        return f"process {self.pid} on {self.host} (busy since {time.strftime(clock, begun)}, {lasted})"


def acquire(path: Path, waiting: Callable[[], None] | None) -> FileLock:
    """Acquire the lock of a file and return it; wait while another process holds it.

    `waiting` is called repeatedly while another process holds the lock, and may raise to give up. Raise Busy if another
    process holds it and `waiting` is None, and OSError if the file cannot be created or opened. Its permissions are
    those of any new file (umask).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    while True:
        with suppress(Timeout):
            lock.acquire(timeout=POLL_SECONDS if waiting else 0)
            break
        if waiting is None:
            raise Busy(path.name)
        waiting()
    with suppress(OSError):  # FILE.json is only informative
        named = _named(path)
        named.unlink(missing_ok=True)  # may be left by a killed process of another user
        named.write_text(json.dumps({**process.this(), "since": time.time()}))
    return lock


def release(path: Path, lock: FileLock) -> None:
    """Release a lock that `acquire` returned."""
    with suppress(OSError):
        _named(path).unlink(missing_ok=True)
    lock.release()


def holder(path: Path) -> Holder | None:
    """Return which process holds a lock, without taking it; None if none does or it is unknown."""
    try:
        named = json.loads(_named(path).read_text())
        return None if process.gone(named) else Holder(int(named["pid"]), str(named["host"]), float(named["since"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _named(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
