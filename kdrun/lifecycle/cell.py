"""What is otherwise for a cell that has neither the terminal nor the machine to itself: lines, signals, GPUs."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kdrun import console
from kdrun.command import plugins
from kdrun.training import stop
from kdrun.training.claim import claimed
from kdrun.training.stop import Interrupted


@contextlib.contextmanager
def apart(cfg: DictConfig, hydra: Any) -> Iterator[None]:
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
