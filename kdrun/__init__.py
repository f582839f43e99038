"""kdrun: knowledge distillation experiments from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdrun.version import __version__

if TYPE_CHECKING:
    from torch import nn

__all__ = ["__version__", "load"]


def load(run: str, role: str = "student", *, seed: int | None = None, outputs: str | None = None) -> nn.Module:
    """Return a trained network with its preprocessing, ready to use on raw images.

    `run` is a run's folder, its name, an artifact's fingerprint or "latest"; `role` is "student",
    "baseline" or "teacher"; `seed` chooses one of several trainings (the first by default). What
    `kdrun export format=safetensors` wrote, its folder or its file, is taken by itself.
    The module takes uint8 (N, C, H, W) in 0..255 or float in [0, 1] and returns logits (N, num_classes).
    Raises ValueError where the run or the role does not exist.
    """
    from kdrun.export.network import load_trained  # torch is imported late

    return load_trained(run, role, seed=seed, outputs=outputs)
