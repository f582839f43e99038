"""From a name and plain arguments to a network that is known to fit the images."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from kdrun import memory, own
from kdrun.models.base import Classifier, Outputs, parameters_device
from kdrun.models.trial import as_it_was, drawing, pixels, try_out
from kdrun.models.weight_files import is_file_name, weights_digest
from kdrun.models.weights import load_weights

FROM_THE_DATA = ("num_classes", "in_channels", "image_size", "mean", "std", "blank")
"""Arguments that kdrun itself passes, most of them from the data set, so no model YAML has them."""


@dataclass(frozen=True)
class Description:
    """The sizes of a network, for tables."""

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
    """Return the network that `use` ("module.callable" below kdrun.models) names, in training mode, on the CPU.

    With a `seed` its initial weights depend on that seed alone, including those of layers that only a first forward
    pass makes; torch's, NumPy's and Python's global generators are left as they were.
    With `blank` published weights are not read, because weights are about to be loaded from elsewhere.
    `weights` is a file to start from; names of published weights are passed to the constructors that take them.
    Raise ValueError if a name or an argument is unknown, if a constructor fails, and, after a forward pass in eval
    mode and one in training mode, if a network cannot take the image size, the channels or the classes.
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
            raise ValueError(f"weights={weights}: {use} has no published weights; name a .safetensors or .pt file")
        given["weights"] = weights
    if unknown := sorted(set(given) - set(accepted)):
        near = difflib.get_close_matches(unknown[0], list(accepted), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        keys = sorted(set(accepted) - set(FROM_THE_DATA))
        raise ValueError(f"{use} has no argument {unknown[0]}{hint}; it takes: {', '.join(keys) or 'none'}")
    smallest = constructor.smallest_image
    if min(image_size) < smallest:
        raise ValueError(f"{use} needs images of at least {smallest}×{smallest}, not {'×'.join(map(str, image_size))}")
    given |= {name: value for name, value in offered.items() if name in accepted}
    called = str(given.get("target") or given.get("arch") or use)
    with drawing(seed):
        try:
            network = constructor(**given)
        except ValueError:
            raise
        except (Exception, SystemExit) as error:
            if memory.ran_out(error):
                raise
            raise ValueError(f"{called} cannot be built: {own.words(error)}") from error
        network.called = called
        try_out(network, num_classes, in_channels, image_size)
    if weights is not None and is_file_name(weights):
        network.remarks += load_weights(network, weights)
    return network


def resolve(use: str) -> type[Classifier]:
    """Return the class that "module.callable" names, among those that a file of kdrun.models has in `__all__`."""
    module_name, _, name = use.partition(".")
    path = f"kdrun.models.{module_name}"
    if not (module_name.isidentifier() and importlib.util.find_spec(path)):
        raise ValueError(f"use: {use} must be file.Class with a file in kdrun/models, such as resnet.CifarResNet")
    offered = importlib.import_module(path).__dict__.get("__all__", ())
    if name not in offered:
        raise ValueError(f"use: {use}: kdrun.models.{module_name} offers {', '.join(offered) or 'no models'}")
    constructor: type[Classifier] = getattr(importlib.import_module(path), name)
    return constructor


def spelled_out(use: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return `use` and its settings, with a user's `use: package.module:Class` rewritten as external.External.

    So a network is the same however it is named. The settings become arguments of the class, except for the keys that
    external.External has itself.
    """
    if not own.is_own(use):
        return use, dict(settings)
    known: dict[str, Any] = {"features": [], "embedding": None, "weights": None}
    arguments = {key: value for key, value in settings.items() if key not in known}
    kept = {key: settings.get(key, usual) for key, usual in known.items()}
    return "external.External", {"target": use, "arguments": arguments, **kept}


def digest(use: str, arguments: dict[str, Any]) -> str | None:
    """Return the sha256 of everything from outside kdrun that determines a network; None if there is nothing.

    That is the source file of an external class, published weights, and a file of initial weights.
    """
    weights = arguments.get("weights")
    parts = [resolve(use).provenance(arguments)]
    if weights is not None and is_file_name(weights):
        parts.append(weights_digest(weights))
    known = [part for part in parts if part is not None]
    return hashlib.sha256("\n".join(known).encode()).hexdigest() if known else None


class Unfilled(TorchFunctionMode):
    """A context in which initial weights are left uninitialised instead of drawn, for when only sizes are needed.

    Drawing them takes most of the time of building a network. The "meta" device would avoid it too, but on it a
    forward pass imports torch's compiler and runs in Python.
    """

    draws = frozenset({Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_})

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in self.draws:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def describe(module: nn.Module, in_channels: int, image_size: tuple[int, int]) -> Description:
    """Return the sizes of a network, measured with one image; it and the generators are left as they were."""
    image = pixels(1, in_channels, image_size, parameters_device(module))
    with torch.no_grad(), drawing(None), as_it_was(module):
        outputs: Outputs = module.eval()(image)
    return Description(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        stages={name: tuple(map.shape[1:]) for name, map in outputs.features.items()},
        embedding=outputs.embedding.shape[1],
    )
