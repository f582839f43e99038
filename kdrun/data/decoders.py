"""Batches of images from files, decoded in worker processes while the network computes."""

import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdrun.data.decoding import BadImage, Source, Sources, decoded
from kdrun.files import RunFailed

PREFETCH = 2
"""Batches that each worker decodes ahead."""
POLL_SECONDS = 1.0
"""Seconds between two checks whether an awaited batch is late."""
TIMES_SLOWER = 10
"""A batch may take this many times as long as the slowest before it."""


@dataclass(frozen=True)
class Workers:
    """How many processes decode images (0: this process does), and how long to wait for a batch."""

    count: int = 0
    timeout: float = 60.0
    """Seconds that a batch may take, or `TIMES_SLOWER` times as long as the slowest so far, if that is longer."""
    waiting: Callable[[], None] | None = None
    """Called repeatedly while a batch is awaited; an exception that it raises ends the waiting."""


HERE = Workers()


class Task(NamedTuple):
    """A batch to decode: where its images lie, and to what size (height, width) and channels."""

    sources: tuple[Source, ...]
    image_size: tuple[int, int]
    channels: int


class Decoders:
    """The worker processes of a data set: all of its parts share them, and they stay from epoch to epoch.

    They end with the data set, or when one of them fails or does not answer. A stream that begins while another is
    under way gets workers of its own.
    """

    def __init__(self) -> None:
        self._tasks = _Tasks()
        self._loader: DataLoader[Tensor] | None = None
        self._busy = False
        self._slowest = 0.0  # seconds of the slowest batch
        self._processes: list[BaseProcess] = []
        weakref.finalize(self, _kill, self._processes, os.getpid())

    def batches(self, tasks: Iterable[Task], workers: Workers, *, pinned: bool) -> Iterator[Tensor]:
        """Yield the pixels of every task, in order: uint8 (N, H, W, C), in page-locked memory if `pinned`.

        Without workers, this process decodes each batch when it is requested. Raise RunFailed if a worker dies, if a
        batch does not come in time, or if a file that was sound at the start can no longer be read.
        """
        if workers.count == 0:
            yield from _here(tasks, pinned)
        elif self._busy:
            yield from Decoders().batches(tasks, workers, pinned=pinned)
        else:
            self._busy, self._tasks.tasks = True, tasks
            try:
                yield from self._from_workers(workers, pinned)
            finally:
                self._busy, self._tasks.tasks = False, ()

    def _from_workers(self, workers: Workers, pinned: bool) -> Iterator[Tensor]:
        batches: Iterator[Tensor] | None = None
        problem = ""
        watch = _Watch(workers, self._slowest, self._processes)
        with watch.watching():
            while not problem:
                try:
                    with watch.waiting():
                        if batches is None:
                            batches = self._begun(workers.count, pinned)
                        batch = next(batches)
                except StopIteration:
                    return
                except BadImage as error:
                    problem = _gone_bad(error)
                    error.__traceback__ = None  # torch's frame refers to the error, a cycle that would keep the loader
                except (RuntimeError, EOFError, OSError) as error:  # the last two: a worker died in a handover
                    known = ("DataLoader worker", "Pin memory thread")
                    if not watch.killed and isinstance(error, RuntimeError) and not str(error).startswith(known):
                        raise
                    problem = watch.killed or (
                        f"a process that decodes images died ({error!r}); if memory ran out, use fewer: "
                        f"workers={workers.count // 2}"
                    )
                else:
                    self._slowest = watch.slowest
                    yield batch
        del batches  # outside of the handlers, which would keep the loader, and its workers, alive
        self._end()
        if workers.waiting is not None:
            workers.waiting()
        raise RunFailed(problem)

    def _end(self) -> None:
        """End the workers."""
        _kill(self._processes, os.getpid())
        self._loader = None

    def _begun(self, count: int, pinned: bool) -> Iterator[Tensor]:
        """Return an iterator over new tasks, with the earlier workers if number and `pinned` are the same.

        torch's handler of SIGCHLD is removed, because it may raise anywhere in the main thread, even in the middle of
        an update. Without it, a dead worker is noticed when its batch is due, within five seconds.
        """
        if self._loader is None or (self._loader.num_workers, self._loader.pin_memory) != (count, pinned):
            self._end()
            self._loader = DataLoader(
                _Decoder(),
                batch_size=None,  # a task is a batch
                sampler=self._tasks,
                num_workers=count,
                persistent_workers=True,
                prefetch_factor=PREFETCH,
                pin_memory=pinned,
                worker_init_fn=_leave_the_group,
                generator=torch.Generator(),  # else torch draws its workers' seed from the global generator
            )
        before, children = signal.getsignal(signal.SIGCHLD), multiprocessing.active_children()
        batches = iter(self._loader)
        self._processes += [child for child in multiprocessing.active_children() if child not in children]
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)
        return batches


class _Watch:
    """Kills the workers if an awaited batch is late, which ends the waiting with an error.

    The loader's own `timeout` does not help: it reads pixels through a socket of the worker, and waits forever if that
    worker is stopped. Time is counted by the polls of a thread, so that an hour in which the command itself was stopped
    (Ctrl-Z) does not count as waiting.
    """

    def __init__(self, workers: Workers, slowest: float, processes: list[BaseProcess]) -> None:
        self.workers, self.slowest, self.processes = workers, slowest, processes
        self.killed = ""  # why
        self._late = 0  # polls since the waiting began
        self._poll = min(POLL_SECONDS, workers.timeout / 4)
        self._waiting, self._ended = False, threading.Event()
        self._batches = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch until the end of the block."""
        thread = threading.Thread(target=self._watch, name="late batches", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for a batch in the block; the first wait includes the start of processes, so it is not measured."""
        began, self._late, self._waiting = time.monotonic(), 0, True
        try:
            yield
        finally:
            self._waiting = False
        if self._batches:
            self.slowest = max(self.slowest, min(time.monotonic() - began, (self._late + 1) * self._poll))
        self._batches += 1

    def _watch(self) -> None:
        while not self._ended.wait(self._poll):
            self._late = self._late + 1 if self._waiting else 0
            seconds = self._late * self._poll
            if seconds >= max(self.workers.timeout, TIMES_SLOWER * self.slowest):
                self.killed = self._stuck(seconds)
            elif self._late and self.workers.waiting is not None:
                try:
                    self.workers.waiting()
                except BaseException as error:  # the main thread calls `waiting` again, which raises
                    self.killed = repr(error)
            if self.killed:
                _kill(self.processes, os.getpid())

    def _stuck(self, seconds: float) -> str:
        before = f", and the slowest before took {self.slowest:.1f} s" if self.slowest >= 0.1 else ""
        return (
            f"no batch of images for {seconds:.0f} s{before}: a process that decodes them is stopped or stuck, or the "
            f"files are slow. The same command resumes; type data_timeout={max(2, 2 * seconds):.0f} to wait longer, or "
            "workers=0 to decode without processes"
        )


def _kill(processes: list[BaseProcess], parent: int) -> None:
    """Kill the workers if this process is their `parent`: nothing milder ends a worker that is stopped."""
    if os.getpid() == parent:
        for process in processes:
            process.kill()
        processes.clear()


class _Tasks:
    """The tasks of the workers, which change from epoch to epoch while their loader stays."""

    def __init__(self) -> None:
        self.tasks: Iterable[Task] = ()

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)


class _Decoder(torch.utils.data.Dataset[Tensor]):
    """The data set of a worker process: pixels by task."""

    def __init__(self) -> None:
        self.opened = Sources()

    def __getitem__(self, task: Task) -> Tensor:
        batch = torch.empty((len(task.sources), *task.image_size, task.channels), dtype=torch.uint8)
        for row, source in zip(batch.numpy(), task.sources, strict=True):
            try:
                row[...] = decoded(self.opened, source, task.image_size, task.channels).pixels
            except BadImage as error:
                raise BadImage(f"{source}: {error}") from error
        return batch


def _leave_the_group(worker: int) -> None:
    """Leave the process group to which terminals and torchrun send signals, to decode the last batches."""
    os.setpgrp()


def _here(tasks: Iterable[Task], pinned: bool) -> Iterator[Tensor]:
    decoder = _Decoder()
    for task in tasks:
        try:
            batch = decoder[task]
        except BadImage as error:
            raise RunFailed(_gone_bad(error)) from None
        yield batch.pin_memory() if pinned else batch


def _gone_bad(error: BadImage) -> str:
    reason = str(error).strip().splitlines()[-1]  # a worker puts its traceback before it
    return f"an image that was readable at the start no longer is: {reason.rpartition('BadImage: ')[2]}"
