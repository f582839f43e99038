"""Signals: the first SIGINT or SIGTERM asks to save and stop, the second leaves at once. Knows no torch."""

from __future__ import annotations

import os
import signal
from contextvars import ContextVar
from types import FrameType, TracebackType

from kdrun import torchrun

# What is listened to. A cell that a launcher runs elsewhere leaves signals to that: Slurm's are requests to requeue.
WATCHED: ContextVar[tuple[signal.Signals, ...]] = ContextVar("watched", default=(signal.SIGINT, signal.SIGTERM))


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop; what was trained so far is saved and the same command resumes."""


class StopFlag:
    """Turns the first SIGINT or SIGTERM into a flag that is read between steps; the second exits 130 at once.

    Under torchrun a second one is passed over: it may be the same, told by both torchrun and a scheduler, and
    torchrun itself ends what has not ended in time.
    """

    def __init__(self) -> None:
        self.raised = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopFlag:
        for number in WATCHED.get():
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:  # not in the main thread: whoever runs us handles signals
                break
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self.raised and not (kind and issubclass(kind, KeyboardInterrupt)):
            raise Interrupted from error  # it came where nobody looks; a sweep would start its next cell

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.raised and torchrun.processes() == 1:
            os._exit(130)
        self.raised = True

    def after_batch(self) -> bool:
        """Whether to stop after this batch."""
        return self.raised

    def check(self) -> None:
        """Raise Interrupted once a signal has come."""
        if self.raised:
            raise Interrupted
