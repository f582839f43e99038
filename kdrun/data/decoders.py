"""Batches of images from files, decoded in worker processes while the network computes."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdrun.data.decoding import BadImage, Source, Sources, decoded
from kdrun.store import RunFailed

PREFETCH = 2
"""Batches that each worker decodes ahead."""


class Task(NamedTuple):
    """A batch to decode: where its images lie, and to what size (height, width) and channels."""

    sources: tuple[Source, ...]
    image_size: tuple[int, int]
    channels: int


class Decoders:
    """The worker processes of a data set: all of its parts share them, and they stay from epoch to epoch.

    They end with the data set, or when one of them fails. A stream that begins while another is under way gets
    workers of its own.
    """

    def __init__(self) -> None:
        self._tasks = _Tasks()
        self._loader: DataLoader[Tensor] | None = None
        self._busy = False

    def batches(self, tasks: Iterable[Task], workers: int, *, pinned: bool) -> Iterator[Tensor]:
        """Yield the pixels of every task, in order: uint8 (N, H, W, C), in page-locked memory if `pinned`.

        Without workers each is decoded in this process as it is taken. Raise RunFailed if a worker dies, or if a
        file that was sound at the start can no longer be read.
        """
        if workers == 0:
            yield from _here(tasks, pinned)
        elif self._busy:
            yield from Decoders().batches(tasks, workers, pinned=pinned)
        else:
            self._busy, self._tasks.tasks = True, tasks
            try:
                yield from self._from_workers(workers, pinned)
            finally:
                self._busy, self._tasks.tasks = False, ()

    def _from_workers(self, workers: int, pinned: bool) -> Iterator[Tensor]:
        batches: Iterator[Tensor] | None = None
        problem = ""
        while not problem:
            try:
                if batches is None:
                    batches = self._begun(workers, pinned)
                batch = next(batches)
            except StopIteration:
                return
            except BadImage as error:
                problem = _gone_bad(error)
                error.__traceback__ = None  # torch's frame refers to the error: a reference cycle with the loader in it
            except (RuntimeError, EOFError, OSError) as error:  # the latter two: it died while handing a batch over
                if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                    raise
                problem = (
                    f"a process that decodes images died ({error!r}); if memory was short, type fewer: "
                    f"workers={workers // 2}"
                )
            else:
                yield batch
        del batches  # outside of the handlers, which would keep the loader, and its workers, alive
        self._loader = None
        raise RunFailed(problem)

    def _begun(self, workers: int, pinned: bool) -> Iterator[Tensor]:
        """Return an iterator over new tasks, on the workers of the last time if their number is the same.

        torch's handler of SIGCHLD is removed. It raises at any point of the main thread, in the middle of an update
        too; without it a dead worker is noticed when its batch is due, within five seconds.
        """
        if self._loader is None or (self._loader.num_workers, self._loader.pin_memory) != (workers, pinned):
            self._loader = DataLoader(
                _Decoder(),
                batch_size=None,  # a task is a batch
                sampler=self._tasks,
                num_workers=workers,
                persistent_workers=True,
                prefetch_factor=PREFETCH,
                pin_memory=pinned,
                worker_init_fn=_leave_the_group,
                generator=torch.Generator(),  # or torch draws a seed for its workers from the global generator
            )
        before = signal.getsignal(signal.SIGCHLD)
        batches = iter(self._loader)
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)
        return batches


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
    """Leave the process group to which terminals and torchrun send signals, so that the last batches are decoded."""
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
    return f"an image that was sound at the start can no longer be read: {reason.rpartition('BadImage: ')[2]}"
