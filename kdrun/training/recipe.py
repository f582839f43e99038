"""A recipe as a spec holds it: what was typed, with its defaults settled for a number of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdrun import config
from kdrun.data.batches import slices
from kdrun.training import average

NEUTRAL = {"class_weights": None, "select": "accuracy"}
"""Settings that came after the first stores: they stand in a spec only if they change something."""


def resolved(recipe: Mapping[str, Any], images: int) -> dict[str, Any]:
    """Return the recipe of a training on so many images: the decay of its average as a number, nothing neutral."""
    settled = {key: value for key, value in recipe.items() if key not in NEUTRAL or value != NEUTRAL[key]}
    if settled["ema_decay"] == config.AUTO:
        steps = settled["epochs"] * len(slices(images, settled["batch_size"], merge_single=True))
        settled["ema_decay"] = average.automatic_decay(steps)
    if settled["ema_decay"] is not None:
        settled["ema"] = average.VERSION
    return settled
