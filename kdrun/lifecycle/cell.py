"""Per-cell setup when cells run in parallel: prefixed log lines, signals, a GPU for each."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig

from kdrun import console, sealed, signals
from kdrun.command import plugins
from kdrun.records import SweepJson
from kdrun.signals import Interrupted


@contextlib.contextmanager
def parallel_setup(cfg: DictConfig, hydra: Any) -> Iterator[None]:
    """Set up a cell that runs in parallel with others: no progress bars, log lines that name it, a GPU of its own.

    Raise Interrupted if the sweep was stopped before this cell began.
    """
    if plugins.in_turn(hydra):
        yield
        return
    together = plugins.side_by_side(hydra)
    with contextlib.ExitStack() as stack:
        stack.callback(console.CELL.reset, console.CELL.set(f"[{hydra.job.num}] "))
        if together:
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # the command receives it and sends SIGTERM
            stack.enter_context(signals.watched(signal.SIGTERM))
            if _stopped(Path(hydra.sweep.dir)):
                raise Interrupted
            cfg.device = stack.enter_context(claimed(cfg.device))
        else:  # submitit handles SIGTERM and the signal that requeues a job
            stack.enter_context(signals.watched(signal.SIGINT, signal.SIGHUP))
        yield


def _stopped(sweep: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return sealed.read(sweep / "sweep.json", SweepJson)["status"] == "interrupted"
    return False


@contextlib.contextmanager
def claimed(device: str) -> Iterator[str]:
    """Yield the device of one cell: if `device` is auto or cuda and there are several GPUs, the least claimed one."""
    several = torch.cuda.is_available() and torch.cuda.device_count() > 1
    if device not in ("auto", "cuda") or not several:
        yield device
        return
    ids = [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]
    # one folder for all commands of a user; UUIDs, since CUDA_VISIBLE_DEVICES changes the numbers
    with claim(ids, Path(tempfile.gettempdir()) / f"kdrun-gpus-{os.getuid()}") as index:
        torch.cuda.set_device(index)  # else code that names no device would allocate on the first GPU
        yield f"cuda:{index}"


@contextlib.contextmanager
def claim(ids: Sequence[str], folder: Path) -> Iterator[int]:
    """Lock one of several devices and yield its index; the lock is released even if the process is killed.

    Never wait: if all devices are locked, the first one is shared, then the second, and so on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for place in itertools.count():
        for index, name in enumerate(ids):
            try:
                held = FileLock(folder / f"{name}.{place}").acquire(timeout=0)
            except Timeout:
                continue
            with held:
                yield index
            return
