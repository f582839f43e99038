"""Calls from Python: what a command returns instead of printing, and the state of the process that is restored.

A command sets up a whole process for itself: Hydra, logging, warnings, signals, torch. On the command line the process
ends with it; a caller in Python goes on, so the previous state is restored.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdrun.records import TableJson

_one_at_a_time = threading.Lock()  # Hydra, logging and torch's settings belong to the process


@dataclass
class Caller:
    """What one command hands back to its caller."""

    folder: Path | None = None  # the folder of the run or sweep
    errors: list[str] = field(default_factory=list)  # what the command line would print
    cause: BaseException | None = None  # the first error that is a bug, of kdrun or of the caller's own code
    plans: list[TableJson] = field(default_factory=list)

    def refuse(self, text: str, cause: BaseException | None = None) -> None:
        """Record an error."""
        self.errors.append(text.removeprefix("kdrun: "))
        self.cause = self.cause or cause


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)  # None: the command line


@contextlib.contextmanager
def called() -> Iterator[Caller]:
    """Yield a caller for one command; calls from several threads run one after the other."""
    with _one_at_a_time, contextlib.ExitStack() as stack:
        for kept in (_process, _hydra, _torch, _random, _matplotlib, _warnings, _logging):
            stack.enter_context(kept())
        stack.callback(CALLER.reset, CALLER.set(caller := Caller()))
        yield caller


@contextlib.contextmanager
def _process() -> Iterator[None]:
    argv, path, folder, variables = sys.argv, [*sys.path], Path.cwd(), dict(os.environ)
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path
        os.chdir(folder)
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)


@contextlib.contextmanager
def _hydra() -> Iterator[None]:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.singleton import Singleton
    from hydra.core.utils import JobRuntime
    from hydra.version import VersionBase

    kinds: tuple[Any, ...] = (GlobalHydra, HydraConfig, VersionBase, JobRuntime)
    kept = [kind.instance() for kind in kinds]
    before = [copy.copy(vars(one)) for one in kept]
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        for kind, one, values in zip(kinds, kept, before, strict=True):
            Singleton._instances[kind] = one  # Hydra's own contexts put copies in its place
            vars(one).clear()
            vars(one).update(values)


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Restore handlers and levels of all loggers; hide them from Hydra's set-up, which would close every handler."""
    module: Any = logging
    captured = module._warnings_showwarning is not None
    loggers = [
        logging.root,
        *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)),
    ]
    before = [(one, [*one.handlers], one.level, one.propagate, one.disabled) for one in loggers]
    disabled = logging.root.manager.disable
    every, named = [*module._handlerList], dict(module._handlers)
    module._handlerList.clear()
    module._handlers.clear()
    logging.root.handlers.clear()
    logging.disable(logging.NOTSET)
    try:
        yield
    finally:
        logging.shutdown()  # closes the command's handlers
        module._handlerList[:] = every
        module._handlers.clear()
        module._handlers.update(named)
        for one, handlers, level, propagate, was_disabled in before:
            one.handlers[:] = handlers
            one.setLevel(level)
            one.propagate, one.disabled = propagate, was_disabled
        logging.disable(disabled)
        logging.captureWarnings(captured)


@contextlib.contextmanager
def _warnings() -> Iterator[None]:
    format_warning = warnings.formatwarning
    try:
        with warnings.catch_warnings():
            yield
    finally:
        warnings.formatwarning = format_warning


@contextlib.contextmanager
def _random() -> Iterator[None]:
    import numpy as np
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)


@contextlib.contextmanager
def _torch() -> Iterator[None]:
    """Set torch as in a new process inside the context, so that numbers do not depend on the caller."""
    import torch

    device, dtype, threads = torch.get_default_device(), torch.get_default_dtype(), torch.get_num_threads()
    restore = [*_deterministic(), *_tf32()]
    torch.set_default_dtype(torch.float32)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if device.type != "cpu":  # only if needed, because this context slows down every operation
                stack.enter_context(torch.device("cpu"))
            yield
    finally:
        for undo in restore:
            undo()
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


Undo = Callable[[], None]


def _attributes(owner: Any, **now: Any) -> list[Undo]:
    """Set attributes, and return functions that restore them."""
    before = {name: getattr(owner, name) for name in now}

    def put(values: dict[str, Any]) -> None:
        for name, value in values.items():
            if getattr(owner, name) != value:
                setattr(owner, name, value)

    put(now)
    return [lambda: put(before)]


def _deterministic() -> list[Undo]:
    import torch

    before, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn = torch.backends.cudnn
    undo = [*_attributes(torch.utils.deterministic, fill_uninitialized_memory=True),
            *_attributes(cudnn, enabled=True, benchmark=False, deterministic=False)]  # fmt: skip
    torch.use_deterministic_algorithms(False)
    return [lambda: torch.use_deterministic_algorithms(before, warn_only=warn_only), *undo]


def _tf32() -> list[Undo]:
    """Turn TF32 off, and return how to undo it: the old switches first, because setting them changes the new ones."""
    import torch

    matmul: str | None = None
    with contextlib.suppress(RuntimeError):  # the new switches are in use, and contradict the old ones
        matmul = torch.get_float32_matmul_precision()
    b: Any = torch.backends
    switches = [b, b.cuda.matmul, b.cudnn, b.cudnn.conv, b.cudnn.rnn, b.mkldnn, b.mkldnn.matmul, b.mkldnn.conv,
                b.mkldnn.rnn]  # fmt: skip
    before = [switch.fp32_precision for switch in switches]
    torch.set_float32_matmul_precision("highest")

    def undo() -> None:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        for switch, value in zip(switches, before, strict=True):
            if switch.fp32_precision != value:
                switch.fp32_precision = value

    return [undo]


@contextlib.contextmanager
def _matplotlib() -> Iterator[None]:
    """Restore the backend and rcParams; if no backend was chosen before, matplotlib chooses one later, as usual."""
    import matplotlib

    settings: Any = matplotlib.rcParams
    before = dict(dict.items(settings))
    try:
        yield
    finally:
        changed = dict.__getitem__(settings, "backend") != before["backend"]
        for name, value in before.items():
            dict.__setitem__(settings, name, value)
        if changed and (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
            if isinstance(before["backend"], str):
                pyplot.switch_backend(before["backend"])
            else:
                vars(pyplot)["_backend_mod"] = None
