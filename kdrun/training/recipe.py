"""A recipe as a spec holds it: as typed, with automatic values resolved for a number of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdrun import config
from kdrun.data.batches import slices
from kdrun.training import average

# Settings added after the first stores were written: a spec omits them at these values, so that fingerprints stay.
NEUTRAL = {"class_weights": None, "select": "accuracy"}


def resolved(recipe: Mapping[str, Any], images: int) -> dict[str, Any]:
    """Return the recipe of a training on `images` images, with ema_decay as a number and without neutral settings."""
    resolved_recipe = {key: value for key, value in recipe.items() if key not in NEUTRAL or value != NEUTRAL[key]}
    if resolved_recipe["ema_decay"] == config.AUTO:
        steps = resolved_recipe["epochs"] * len(slices(images, resolved_recipe["batch_size"], merge_single=True))
        resolved_recipe["ema_decay"] = average.automatic_decay(steps)
    if resolved_recipe["ema_decay"] is not None:
        resolved_recipe["ema"] = average.VERSION
    return resolved_recipe
