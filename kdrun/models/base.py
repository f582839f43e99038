"""What every network of kdrun returns, and what the families share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
    strong: Outputs | None = None
    """The outputs for a second, more strongly augmented view of the same images, if a loss compares two."""


def logits_alone(logits: Tensor) -> Outputs:
    """Return logits (N, C) as the outputs of a teacher of which nothing else is known."""
    return Outputs(logits, {}, {}, logits[:, :0])


class Classifier(nn.Module):
    """Base of all networks: images (N, in_channels, height, width) in, `Outputs` out, no hooks."""

    smallest_image: ClassVar[int] = 1
    """Shortest image side, in pixels, that the network can take."""
    slow_to_import: ClassVar[bool] = False
    """Whether building the network imports a slow library; a list of networks shows it without building it."""
    foreign: ClassVar[bool] = False
    """Whether it is a user's own code."""
    advice: str = ""
    """What to set when the network cannot take the images; ends that error's message."""
    copies_input: bool = False
    """Whether it works on a copy of each batch, because it changes its input, which others read too."""
    called: str = ""
    """Its name for the user: the class or architecture that was typed."""
    remarks: tuple[str, ...] = ()
    """What a user should know about the network: sentences without their subject, which is its name."""

    @classmethod
    def provenance(cls, arguments: Mapping[str, Any]) -> str | None:
        """Return the sha256 of code or weights from outside kdrun that determine the result, if any."""
        return None

    def forward(self, images: Tensor) -> Outputs:
        raise NotImplementedError

    def own(self, images: Tensor) -> Tensor:
        """Return the images that foreign code may work on: a copy if it changes its input."""
        return images.clone() if self.copies_input else images

    def look(self, images: Tensor) -> tuple[str, ...]:
        """Inspect a forward pass, after all layers have been created, and return remarks for the user.

        Called in eval mode, then in training mode. Only foreign networks override it.
        """
        return ()


def pooled(features: Tensor) -> Tensor:
    """Return the mean over the map, (N, c, h, w) -> (N, c), so that any image size will do."""
    return features.mean((2, 3))


def initialise(network: nn.Module, linear_std: float | None = None) -> None:
    """Draw weights by He's initialisation as the CIFAR networks use it: convolutions from N(0, 2 / (k²·out_channels)).

    The published WideResNet, VGG and MobileNetV2 code has the same formula. With `linear_std` linear weights are
    drawn from N(0, linear_std²) with zero bias; without it they keep torch's default.
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
    """Raise ValueError if widths, depths and the like are below 1."""
    if min([values] if isinstance(values, int) else values, default=0) < 1:
        raise ValueError(f"{name}={values}: needs whole numbers of at least 1")


def probability(name: str, value: float) -> None:
    """Raise ValueError if a drop rate is outside [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name}={value}: must lie in [0, 1)")


@contextmanager
def captured(outputs_of: Mapping[str, nn.Module], inputs_of: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that records tensors inside a foreign network: outputs or inputs of named modules.

    The hooks exist only within the block. For a module that runs more than once, the last tensor is recorded.
    Outputs and inputs are recorded in one dictionary, so their names must differ.
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
    """Yield a record of the modules' outputs, in the order in which they run, with torch's count of in-place writes."""
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
    """Return a remark for each of the named modules whose output a later layer has changed in place."""
    return [
        f"changes the output of {name} in place in a later layer: losses compare the changed output"
        for name in names
        if name in seen and seen[name][0]._version != seen[name][1]
    ]


class Unfit(Exception):
    """kdrun cannot work with a foreign network; the message is a sentence without its subject, the network's name."""


def parameters_device(network: nn.Module) -> torch.device:
    """Return the device of a network; the CPU for one without parameters."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
