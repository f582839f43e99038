"""A GPU for each of several cells that run side by side: whoever starts them assigns none, so each claims its own."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout


@contextmanager
def claimed(asked: str) -> Iterator[str]:
    """Yield the device of one cell: where auto or cuda was asked for and there are several GPUs, the least claimed."""
    several = torch.cuda.is_available() and torch.cuda.device_count() > 1
    if asked not in ("auto", "cuda") or not several:
        yield asked
        return
    ids = [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]
    # one folder for all commands of a user; the GPUs' own ids, since CUDA_VISIBLE_DEVICES numbers them anew
    with claim(ids, Path(tempfile.gettempdir()) / f"kdrun-gpus-{os.getuid()}") as index:
        torch.cuda.set_device(index)  # or whatever names no device would make itself a place on the first
        yield f"cuda:{index}"


@contextmanager
def claim(ids: Sequence[str], folder: Path) -> Iterator[int]:
    """Hold one of several devices by a lock that a killed process frees; give its index.

    Never waits: when all are taken, the first is taken a second time, and so on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for place in itertools.count():
        for index, name in enumerate(ids):
            lock = FileLock(folder / f"{name}.{place}")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield index
            finally:
                lock.release()
            return
