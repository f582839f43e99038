"""What the tests of the losses are given: outputs, batches, and the inputs of the golden values."""

from pathlib import Path
from typing import Any

from kdrun.losses import META
from kdrun.losses.contract import STEPS, ZS, ZT, Y, batch, outputs, setting
from kdrun.verbs.losses import settings

__all__ = ["CONF", "NAMES", "STEPS", "ZS", "ZT", "Y", "arguments", "batch", "node", "outputs", "setting"]

CONF = Path(__file__).parents[2] / "conf" / "loss"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def node(name: str, T: float = 4.0, alpha: float = 0.9) -> dict[str, Any]:
    """The YAML's node with ${T} filled in, and alpha where that weighs it."""
    return settings(CONF / f"{name}.yaml", name, T, alpha)


def arguments(name: str) -> dict[str, Any]:
    """The YAML's keys that its term's constructor takes."""
    return {key: value for key, value in node(name).items() if key not in META}
