"""What every network of kdrun returns, and what the families share."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn as nn
from torch import Tensor


class Outputs(NamedTuple):
    """One forward pass, with everything a distillation loss may ask for.

    Names run in order of depth ("stem", "stage1", …) and are the same in both dictionaries, unless a
    foreign network has no pre-activations to offer.
    """

    logits: Tensor
    """(N, num_classes)"""
    features: dict[str, Tensor]
    """Stage outputs as the published code takes them, after the ReLU if a stage ends in one, (N, c, h, w)."""
    preactivations: dict[str, Tensor]
    """The same maps before that ReLU (or before the one that follows the stage), (N, c, h, w)."""
    embedding: Tensor
    """What the classification layer sees, pooled, (N, d)."""


class Classifier(nn.Module):
    """Base of all networks: images (N, in_channels, height, width) in, `Outputs` out, no hooks."""

    smallest_image: ClassVar[int] = 1
    """Shortest image side, in pixels, that the network can take."""
    slow_to_import: ClassVar[bool] = False
    """Whether it is built by a library that a mere list of networks should not wait for."""
    foreign: ClassVar[bool] = False
    """Whether it is a user's own code, of which nothing is known."""
    advice: str = ""
    """What to set when the network cannot take the images; ends that error's message."""
    copies_input: bool = False
    """Whether it works on a copy of each batch, because it changes what it is given and others see the batch too."""
    called: str = ""
    """What a user knows it by: the class or architecture that was typed."""
    remarks: tuple[str, ...] = ()
    """What a user should know of how it was built, in words that go on after its name."""

    @classmethod
    def provenance(cls, arguments: Mapping[str, Any]) -> str | None:
        """Sha256 of the code or weights that decide the result and are not kdrun's own; None without such."""
        return None

    def forward(self, images: Tensor) -> Outputs:
        raise NotImplementedError

    def own(self, images: Tensor) -> Tensor:
        """Return the images that foreign code may work on: a copy where it changes what it is given."""
        return images.clone() if self.copies_input else images

    def look(self, images: Tensor) -> tuple[str, ...]:
        """Settle what only a forward pass tells, once all layers are there, and give what is to be said of it.

        Called in eval mode, then in training mode. Foreign networks alone have something to settle.
        """
        return ()


def pooled(features: Tensor) -> Tensor:
    """Mean over the map, (N, c, h, w) -> (N, c), so that any image size will do."""
    return features.mean((2, 3))


def initialise(network: nn.Module, linear_std: float | None = None) -> None:
    """He's initialisation as the CIFAR networks use it: N(0, 2 / (k²·out_channels)) for convolutions.

    The published WideResNet, VGG and MobileNetV2 code spells out the same formula. `linear_std` draws
    linear weights from N(0, linear_std²) with zero bias; without it torch's own default stays.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
            nn.init.zeros_(module.bias)


def positive(name: str, values: int | list[int]) -> None:
    """Refuse widths, depths and the like below 1."""
    numbers = [values] if isinstance(values, int) else list(values)
    if not numbers or min(numbers) < 1:
        raise ValueError(f"{name}={values}: whole numbers of at least 1 are needed")


def probability(name: str, value: float) -> None:
    """Refuse a drop rate outside [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name}={value}: must lie in [0, 1)")


@contextmanager
def captured(outputs_of: Mapping[str, nn.Module], inputs_of: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Record tensors inside a network that is not ours: what named modules return, or what enters them.

    Only foreign networks need it; the hooks live for one forward pass. A module that runs more than once
    leaves its last tensor. Yields one dictionary for both, so their names must differ.
    """
    seen: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, module in outputs_of.items():

            def keep_output(_module: nn.Module, _inputs: Any, output: Tensor, name: str = name) -> None:
                seen[name] = output

            hooks.callback(module.register_forward_hook(keep_output).remove)
        for name, module in inputs_of.items():

            def keep_input(_module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                seen[name] = inputs[0]

            hooks.callback(module.register_forward_pre_hook(keep_input).remove)
        yield seen


@contextmanager
def ran(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, tuple[Tensor, int]]]:
    """Record, in the order in which they run, what modules return, with its version: an in-place write raises that."""
    seen: dict[str, tuple[Tensor, int]] = {}
    with ExitStack() as hooks:
        for name, module in modules.items():

            def keep(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                seen.pop(name, None)
                if isinstance(output, Tensor):
                    seen[name] = output, output._version

            hooks.callback(module.register_forward_hook(keep).remove)
        yield seen


def overwritten(seen: Mapping[str, tuple[Tensor, int]], names: Sequence[str]) -> list[str]:
    """Return which of the named modules' outputs a later layer has changed in place."""
    return [
        f"changes what {name} returns in a later layer, in place: losses compare it as that layer leaves it"
        for name in names
        if name in seen and seen[name][0]._version != seen[name][1]
    ]


class Unfit(Exception):
    """What a foreign network turns out to be, in words that go on after its name: kdrun cannot work with it."""


def words(error: BaseException) -> str:
    """Return what foreign code raised: its first line, with its type where that says little alone, and its place."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    plain = said and isinstance(error, RuntimeError | AssertionError | ValueError)
    return (said if plain else f"{type(error).__name__}: {said}".removesuffix(": ")) + _place(error)


def _place(error: BaseException) -> str:
    """Name the line that raised it, where it is the user's own; libraries' say nothing to a user."""
    libraries = [str(Path(file).parents[up]) for file, up in ((torch.__file__, 0), (__file__, 1))]
    libraries += [sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.endswith(".py") and not frame.filename.startswith(tuple(libraries)):
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""


def parameters_device(network: nn.Module) -> torch.device:
    """Where a network lives; the CPU for one without parameters."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
