"""What the tests of the losses are given: outputs, batches, and the inputs of the golden values."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from kdrun.command import groups
from kdrun.data.batches import Batch
from kdrun.losses import META
from kdrun.losses.base import Setting
from kdrun.models.base import Outputs

CONF = Path(__file__).parents[2] / "conf" / "loss"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))

groups.resolvers()

STEPS = torch.arange(20, dtype=torch.float64)
ZS = (2 * STEPS.sin()).reshape(4, 5)
ZT = (3 * STEPS.cos()).reshape(4, 5)
Y = torch.tensor([0, 1, 2, 3])


def node(name: str, T: float = 4.0, alpha: float = 0.9) -> dict[str, Any]:
    """The YAML's node with ${T} filled in, and alpha where that weighs it."""
    loss = OmegaConf.load(CONF / f"{name}.yaml")
    root = OmegaConf.create({"T": T, "alpha": alpha, "loss": loss})
    keys: Any = OmegaConf.to_container(root.loss, resolve=True)
    return {**keys, "weight": alpha} if keys.pop("weighed_by", None) else keys


def arguments(name: str) -> dict[str, Any]:
    """The YAML's keys that its term's constructor takes."""
    return {key: value for key, value in node(name).items() if key not in META}


def outputs(logits: Tensor, width: int = 3) -> Outputs:
    """What a network with two stages would give with these logits; the same call gives the same maps."""
    generator = torch.Generator().manual_seed(width)
    n = len(logits)
    maps = {
        "stage1": torch.randn(n, width, 8, 8, generator=generator, dtype=torch.float64).to(logits),
        "stage2": torch.randn(n, 2 * width, 4, 4, generator=generator, dtype=torch.float64).to(logits),
    }
    features = {name: x.relu() for name, x in maps.items()}
    return Outputs(logits, features, maps, features["stage2"].mean((2, 3)))


def batch(labels: Tensor, epoch: int = 0) -> Batch:
    """A batch of empty images with these labels."""
    n = len(labels)
    return Batch(torch.zeros(n, 1, 8, 8), labels, torch.arange(n), epoch)


def setting(num_samples: int = 8, batch_size: int = 4) -> Setting:
    """A training set of so many images, the classes in turn."""
    return Setting(num_samples, batch_size, torch.arange(num_samples) % 5)
