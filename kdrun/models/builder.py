"""From a name and plain arguments to a network that is known to fit the images."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from kdrun.models.base import Classifier, Outputs, parameters_device
from kdrun.models.weights import file_digest, is_file_name, load_weights

FROM_THE_DATA = ("num_classes", "in_channels", "image_size", "mean", "std", "blank")
"""Arguments that the data set decides, so that no model YAML carries them."""


@dataclass(frozen=True)
class Description:
    """What a table says about a network."""

    parameters: int
    stages: dict[str, tuple[int, ...]]
    """Shape of each stage output, without the batch: (channels, height, width)."""
    embedding: int


def build(
    use: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int | None = None,
    weights: str | None = None,
    blank: bool = False,
    **arguments: Any,
) -> Classifier:
    """The network that `use` ("module.callable" below kdrun.models) names, in training mode, on the CPU.

    With a `seed` its initial weights depend on that seed alone and the global generator is left as it was.
    `blank` spares the published weights of a network that is about to be loaded from elsewhere.
    `weights` is a file to start from; names of published weights go to the constructors that know them.
    Raises ValueError for unknown names and arguments, and, after one forward pass over a single blank
    image, for a network that cannot take the image size, the channels or the classes.
    """
    constructor = resolve(use)
    accepted = inspect.signature(constructor).parameters
    offered = {
        "num_classes": num_classes,
        "in_channels": in_channels,
        "image_size": tuple(image_size),
        "mean": None if mean is None else tuple(mean),
        "std": None if std is None else tuple(std),
        "blank": blank,
    }
    given = dict(arguments)
    if weights is not None and not is_file_name(weights):
        if "weights" not in accepted:
            raise ValueError(f"weights={weights}: {use} publishes none; name a .safetensors or .pt file")
        given["weights"] = weights
    if unknown := sorted(set(given) - set(accepted)):
        near = difflib.get_close_matches(unknown[0], list(accepted), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        own = sorted(set(accepted) - set(FROM_THE_DATA))
        raise ValueError(f"{use} has no argument {unknown[0]}{hint}; it takes: {', '.join(own) or 'none'}")
    smallest = constructor.smallest_image
    if min(image_size) < smallest:
        raise ValueError(f"{use} needs images of at least {smallest}×{smallest}, not {_size(image_size)}")
    given |= {name: value for name, value in offered.items() if name in accepted}
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            # The default generator alone: torch.manual_seed would reseed the GPUs too.
            torch.default_generator.manual_seed(seed)
        network = constructor(**given)
    if weights is not None and is_file_name(weights):
        load_weights(network, weights)
    _check(use, network, num_classes, in_channels, image_size)
    return network


def resolve(use: str) -> type[Classifier]:
    """The class that "module.callable" names, among those that a file of kdrun.models offers in `__all__`."""
    module_name, _, name = use.partition(".")
    path = f"kdrun.models.{module_name}"
    if not (module_name.isidentifier() and importlib.util.find_spec(path)):
        raise ValueError(f"use: {use} is not file.Class with a file of kdrun/models, such as resnet.CifarResNet")
    offered = importlib.import_module(path).__dict__.get("__all__", ())
    if name not in offered:
        raise ValueError(f"use: {use}: kdrun.models.{module_name} offers {', '.join(offered) or 'no models'}")
    constructor: type[Classifier] = getattr(importlib.import_module(path), name)
    return constructor


def digest(use: str, arguments: dict[str, Any]) -> str | None:
    """Sha256 over what decides a network and is not kdrun's own; None when there is nothing of the kind.

    That is the source file of an external class, published weights, and a file of initial weights.
    """
    weights = arguments.get("weights")
    parts = [resolve(use).provenance(arguments)]
    if weights is not None and is_file_name(weights):
        parts.append(file_digest(weights))
    known = [part for part in parts if part is not None]
    return hashlib.sha256("\n".join(known).encode()).hexdigest() if known else None


class Unfilled(TorchFunctionMode):
    """Within it, networks keep memory as it comes for initial weights: for those who only ask for sizes.

    Drawing them takes most of the time of building a network. On the "meta" device, which spares it too, a
    forward pass imports torch's compiler and runs in Python.
    """

    draws = frozenset({Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_})

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in self.draws:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def describe(module: nn.Module, in_channels: int, image_size: tuple[int, int]) -> Description:
    """Parameters and stage shapes of a network, measured with one blank image."""
    outputs = _probe(module, in_channels, image_size)
    return Description(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        stages={name: tuple(map.shape[1:]) for name, map in outputs.features.items()},
        embedding=outputs.embedding.shape[1],
    )


def _probe(module: nn.Module, in_channels: int, image_size: tuple[int, int]) -> Outputs:
    """Outputs for one blank image, leaving the mode, the statistics and the generators as they were."""
    was_training = {part: part.training for part in module.modules()}
    image = torch.zeros(1, in_channels, *image_size, device=parameters_device(module))
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            outputs: Outputs = module(image)
    finally:
        for part, training in was_training.items():
            part.training = training
    return outputs


def _check(use: str, network: Classifier, num_classes: int, in_channels: int, image_size: tuple[int, int]) -> None:
    try:
        outputs = _probe(network, in_channels, image_size)
    except (RuntimeError, AssertionError, IndexError, TypeError) as error:
        reason = str(error).split("\n")[0]
        images = f"{in_channels}-channel images of {_size(image_size)}"
        raise ValueError(f"{use} cannot take {images}: {reason or type(error).__name__}{network.advice}") from error
    if outputs.logits.shape != (1, num_classes):
        raise ValueError(
            f"{use} returns logits of shape {tuple(outputs.logits.shape)} for one image; "
            f"the data has {num_classes} classes, so (1, {num_classes}) is needed"
        )
    for stage, map in outputs.features.items():
        if map.ndim != 4:
            shape = tuple(map.shape)
            raise ValueError(f"features: {stage} of {use} has shape {shape}; maps (N, c, h, w) are needed")


def _size(image_size: tuple[int, int]) -> str:
    return "×".join(str(side) for side in image_size)
