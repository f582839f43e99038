"""Signals: the first SIGINT or SIGTERM asks to save and stop, the second exits at once. Does not import torch."""

from __future__ import annotations

import os
import signal
from contextvars import ContextVar
from types import FrameType, TracebackType

from kdrun import torchrun

# The handled signals. A cell under a launcher such as Slurm leaves them to it: there they are requests to requeue.
WATCHED: ContextVar[tuple[signal.Signals, ...]] = ContextVar("watched", default=(signal.SIGINT, signal.SIGTERM))


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop; the training so far is saved and the same command resumes."""


class StopFlag:
    """A flag that the first SIGINT or SIGTERM raises, read between steps; the second one exits 130 at once.

    Under torchrun the second one is ignored: it may be the same signal, sent by both torchrun and a scheduler, and
    torchrun itself kills processes that have not ended in time.
    """

    def __init__(self) -> None:
        self.raised = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopFlag:
        for number in WATCHED.get():
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:  # not in the main thread: the caller handles signals
                break
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self.raised and not (kind and issubclass(kind, KeyboardInterrupt)):
            raise Interrupted from error  # nobody read the flag: without this a sweep would start its next cell

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.raised and torchrun.processes() == 1:
            os._exit(130)
        self.raised = True

    def after_batch(self) -> bool:
        """Return whether to stop after this batch."""
        return self.raised

    def check(self) -> None:
        """Raise Interrupted once a signal has come."""
        if self.raised:
            raise Interrupted
