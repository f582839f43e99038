from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from kdrun import models

CONF = Path(__file__).parents[2] / "conf" / "model"


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny batches gain nothing from threads, and lose seconds where the processor is shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def build():
    """A model of conf/model by its name, on CIFAR-like data unless told otherwise."""

    def make(name: str, **changes: Any):
        data = {
            "num_classes": 100,
            "in_channels": 3,
            "image_size": (32, 32),
            "mean": (0.5,) * changes.get("in_channels", 3),
            "std": (0.25,) * changes.get("in_channels", 3),
            "seed": 0,
        }
        return models.build(**(data | yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changes))

    return make
