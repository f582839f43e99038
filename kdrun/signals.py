"""Signals: the first SIGINT, SIGTERM or SIGHUP asks the process to stop, the second makes it exit at once.

What the first signal does depends on what the process is doing:

- Before anything is begun (imports, reading the command line, listings), exit at once: nothing has to be undone.
- Within `raising()`, a verb's work, raise Interrupted wherever the process is; partial results are removed.
- Within `with StopFlag()`, a training, raise the flag, which is read between steps: the step ends and is saved.
- Between two verbs of a sweep, and while records are written, keep the signal for the next verb.

A thread sees every signal, even while the main thread is busy in C code. It exits on the second signal, or if the
first has not ended the process after PATIENCE_SECONDS.

For a caller in Python, `embedded()`, the process never exits: Interrupted is raised instead, and KeyboardInterrupt for
a second Ctrl-C. Does not import torch.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType, TracebackType

from kdrun import torchrun

INTERRUPTED, AT_ONCE = 75, 130  # exit codes
PATIENCE_SECONDS = 9.0  # how long a process may take to save and end after the first signal
ONE_REQUEST_SECONDS = 0.1  # signals within this time are one request, which timeout(1) and closing terminals send twice
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop; the training so far is saved and the same command resumes."""


@dataclass
class _Watch:
    """The watched signals of this process."""

    embedded: bool = False  # whether the process belongs to a caller in Python, and must go on
    begun: bool = False  # whether anything has to be undone or recorded
    received: float | None = None  # when the first signal came
    raises: bool = False  # whether to raise Interrupted if no flag takes the signal
    flags: list[StopFlag] = field(default_factory=list)  # the flags that are entered
    first: list[Callable[[], None]] = field(default_factory=list)  # called on the first signal
    handlers: dict[int, object] = field(default_factory=dict)  # as they were before
    pipe: tuple[int, int] | None = None


_watch = _Watch()  # signal handlers belong to the process, and so does this


def _forget() -> None:
    global _watch
    _watch = _Watch()


def received() -> bool:
    """Return whether a signal has asked this process to stop."""
    return _watch.received is not None


def begin(*, raises: bool = False) -> None:
    """Stop exiting at once on a signal: from here on there is something to record."""
    _watch.begun, _watch.raises = True, raises


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Raise Interrupted as soon as a signal comes, or if one came before; within a StopFlag, raise the flag instead."""
    before = _watch.raises
    begin(raises=True)
    try:
        if received():
            raise Interrupted
        yield
    finally:
        _watch.raises = before


@contextlib.contextmanager
def holding() -> Iterator[None]:
    """Let a block within `raising()` finish: a signal then stops only what comes after the verb."""
    before, _watch.raises = _watch.raises, False
    try:
        yield
    finally:
        _watch.raises = before


def on_first(act: Callable[[], None]) -> None:
    """Call `act` on the first signal, before Interrupted is raised."""
    _watch.first.append(act)


@contextlib.contextmanager
def watched(*numbers: signal.Signals, last: bool = False) -> Iterator[None]:
    """Watch signals, by default all three; SIGHUP only if it was not ignored at the start, as under nohup.

    Afterwards the handlers are restored. If this is the `last` thing that the process does, signals are then ignored
    instead, so that they do not change its exit code.
    """
    if _watch.handlers or threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    chosen = [n for n in numbers or NUMBERS if not (n == signal.SIGHUP and ignored)]
    read, write = _watch.pipe = os.pipe()
    os.set_blocking(write, False)
    threading.Thread(target=_look, args=(read, frozenset(chosen)), name="signals", daemon=True).start()
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    _watch.handlers = {number: signal.signal(number, _handle) for number in chosen}
    try:
        yield
    finally:
        for number, handler in _watch.handlers.items():
            signal.signal(number, signal.SIG_IGN if last else handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(-1)
        if not last:  # else the thread goes on: the end of the process may hang as well
            os.close(write)
        _forget()


@contextlib.contextmanager
def embedded() -> Iterator[None]:
    """Watch signals for a caller in Python: Ctrl-C, and SIGTERM and SIGHUP where they would end the process.

    Afterwards the handlers are restored. Outside the main thread, where Python allows no handlers, the caller's
    handling of signals is left as it is.
    """
    if _watch.handlers:
        yield
        return
    chosen: list[signal.Signals] = []
    if threading.current_thread() is threading.main_thread():
        chosen = [n for n in NUMBERS if n == signal.SIGINT or signal.getsignal(n) == signal.SIG_DFL]
    _watch.embedded = True
    try:
        _watch.handlers = {number: signal.getsignal(number) for number in chosen}
        for number in chosen:
            signal.signal(number, _handle)
        yield
    finally:
        for watched_number, handler in _watch.handlers.items():
            # None: the handler was set in C, and cannot be restored from Python
            signal.signal(watched_number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        _forget()


def _handle(number: int, frame: FrameType | None) -> None:
    """Act on the first signal; later ones are left to the thread, or raise KeyboardInterrupt in a caller's process."""
    if _watch.received is not None:
        if _watch.embedded and time.monotonic() - _watch.received > ONE_REQUEST_SECONDS:
            raise KeyboardInterrupt
        return
    _watch.received = time.monotonic()
    if not _watch.begun and not _watch.flags:
        if _watch.embedded:
            raise Interrupted
        _leave(INTERRUPTED, "interrupted before anything was started; the same command starts again")
    for act in _watch.first:
        act()
    for flag in _watch.flags:
        flag.raised = True
    if _watch.raises and not _watch.flags:
        raise Interrupted


def _look(pipe: int, numbers: frozenset[int]) -> None:
    """Exit on the second signal, or if the first has not ended the process in time; return once the pipe is closed.

    Under torchrun the second signal is ignored: it may be the same request, sent by both torchrun and a scheduler, and
    torchrun itself kills processes that do not end in time.
    """
    first: float | None = None
    while True:
        wait = None if first is None else max(0.0, first + PATIENCE_SECONDS - time.monotonic())
        if not select.select([pipe], [], [], wait)[0]:
            _leave(
                INTERRUPTED,
                f"not done {PATIENCE_SECONDS:.0f} s after the signal: exiting; what was saved before is kept, and the "
                "same command resumes from there",
            )
        if not (seen := os.read(pipe, 64)):
            os.close(pipe)
            return
        if not numbers & set(seen):
            continue
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > ONE_REQUEST_SECONDS and torchrun.processes() == 1:
            _leave(AT_ONCE, "second signal: exiting at once; what was saved before is kept")


def _leave(code: int, message: str) -> None:
    with contextlib.suppress(OSError):  # not through sys.stderr, which the main thread may be writing to
        os.write(2, f"kdrun: {message}\n".encode())
    os._exit(code)


def _forked() -> None:
    """Leave signals to the parent: a forked worker shares its terminal, and ends when the parent tells it to."""
    if not _watch.handlers:
        return
    for number in _watch.handlers:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    if _watch.pipe is not None:
        signal.set_wakeup_fd(-1)
        for end in _watch.pipe:
            os.close(end)
    _forget()


os.register_at_fork(after_in_child=_forked)


class StopFlag:
    """A flag that the first signal raises while the flag is entered; it is read between steps."""

    def __init__(self) -> None:
        self.raised = False

    def __enter__(self) -> StopFlag:
        _watch.flags.append(self)
        self.raised = self.raised or received()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self in _watch.flags:
            _watch.flags.remove(self)
        if self.raised and kind is None:
            raise Interrupted  # nobody read the flag: without this a sweep would start its next cell

    def after_batch(self) -> bool:
        """Return whether to stop after this batch."""
        return self.raised

    def check(self) -> None:
        """Raise Interrupted once a signal has come."""
        if self.raised:
            raise Interrupted
