"""What is otherwise for a cell that has neither the terminal nor the machine to itself: lines, signals, GPUs."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig

from kdrun import console
from kdrun.command import plugins
from kdrun.training import stop
from kdrun.training.stop import Interrupted


@contextlib.contextmanager
def parallel_setup(cfg: DictConfig, hydra: Any) -> Iterator[None]:
    """Run a cell beside others, where its launcher does so: no bars, lines that name it, a GPU of its own.

    Raises Interrupted where the sweep was stopped before this cell began.
    """
    if plugins.in_turn(hydra):
        yield
        return
    together = plugins.side_by_side(hydra)
    with contextlib.ExitStack() as stack:
        _set(stack, console.CELL, f"[{hydra.job.num}] ")
        _set(stack, stop.WATCHED, (signal.SIGTERM,) if together else ())
        if together:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command hears it and sends SIGTERM
            if _stopped(Path(hydra.sweep.dir)):
                raise Interrupted
            cfg.device = stack.enter_context(claimed(cfg.device))
        yield


def _set(stack: contextlib.ExitStack, variable: Any, value: Any) -> None:
    stack.callback(variable.reset, variable.set(value))


def _stopped(sweep: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads((sweep / "sweep.json").read_text())["status"] == "interrupted")
    return False


@contextlib.contextmanager
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


@contextlib.contextmanager
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
