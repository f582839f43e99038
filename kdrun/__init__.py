"""kdrun: knowledge distillation experiments from the command line, and from Python."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kdrun.version import __version__

if TYPE_CHECKING:
    from torch import nn

    from kdrun.api import Plan, Result, Sweep, distill, load_run, runs, sweep, train_baseline, train_teacher
    from kdrun.files import RunFailed
    from kdrun.signals import Interrupted

__all__ = [
    "Interrupted",
    "Plan",
    "Result",
    "RunFailed",
    "Sweep",
    "__version__",
    "distill",
    "load",
    "load_run",
    "runs",
    "sweep",
    "train_baseline",
    "train_teacher",
]
_ELSEWHERE = {"Interrupted": "kdrun.signals", "RunFailed": "kdrun.files"}


def __getattr__(name: str) -> Any:  # so that the command line starts without what it does not need
    if name not in __all__:
        raise AttributeError(f"module 'kdrun' has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "kdrun.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(run: str, role: str = "student", *, seed: int | None = None, outputs: str | None = None) -> nn.Module:
    """Return a trained network with its preprocessing, ready to use on raw images.

    `run` is a run's folder, its name, an artifact's fingerprint or "latest"; `role` is "student",
    "baseline" or "teacher"; `seed` chooses one of several trainings (the first by default). `run` may also be
    a file that `kdrun export format=safetensors` wrote, or its folder, which needs neither role nor seed.
    The module takes uint8 (N, C, H, W) in 0..255 or float in [0, 1] and returns logits (N, num_classes).
    Raise ValueError if the run or the role does not exist.
    """
    from kdrun.export.network import load_trained  # torch is imported late

    return load_trained(run, role, seed=seed, outputs=outputs)
