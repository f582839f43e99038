"""The learning rate as a pure function of the global step, so that a checkpoint needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

ONECYCLE_WARMUP, ONECYCLE_START, ONECYCLE_END = 0.3, 1 / 25, 1 / 25e4  # torch's OneCycleLR defaults


def factor(recipe: Mapping[str, Any], step: int, steps_per_epoch: int) -> float:
    """Return the factor of `recipe.lr` at `step` (from 0) of `recipe.epochs` × `steps_per_epoch` steps.

    multistep multiplies by gamma after each milestone's epoch; cosine falls to 0 after the warm-up (Loshchilov &
    Hutter 2017, without restarts); onecycle is torch's OneCycleLR with its defaults (Smith & Topin 2018). During the
    warm-up, except with onecycle, the factor rises linearly to 1 in `warmup_epochs`.
    """
    total = recipe["epochs"] * steps_per_epoch
    warmup = round(recipe["warmup_epochs"] * steps_per_epoch)
    schedule = recipe["schedule"]
    if schedule == "onecycle":
        peak = ONECYCLE_WARMUP * total - 1
        if step <= peak:
            return _anneal(ONECYCLE_START, 1.0, step / peak)
        return _anneal(1.0, ONECYCLE_END, (step - peak) / (total - 1 - peak))
    if step < warmup:
        return float((step + 1) / warmup)
    if schedule == "multistep":
        passed = sum(step // steps_per_epoch >= milestone for milestone in recipe["milestones"])
        return float(recipe["gamma"] ** passed)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    return 1.0


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
