"""A network of the user's own, or of a library, by its import name."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from kdrun import memory, own
from kdrun.models.base import Classifier, Outputs, Unfit, captured, overwritten, ran

__all__ = ["External"]


class External(Classifier):
    """Wraps a class or factory named "package.module:Class", which is called only if it makes networks.

    The network may return logits, a value with several entries of which one is the logits (see `taken`), or kdrun's
    own `Outputs`. It is given num_classes, in_channels (in_chans for timm) and image_size if its signature has
    these names and `arguments` does not set them.

    target: "package.module:Class", importable from here (the current folder counts), an nn.Module subclass
        or a model factory of torchvision or timm.
    arguments: keyword arguments of the target.
    features: names of modules whose outputs become stage1, stage2, … (ignored if it returns `Outputs`).
    embedding: name of the module whose pooled output is the embedding; null: the input of the layer that
        gives the logits.
    """

    foreign = True

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        target: str,
        arguments: dict[str, Any] | None = None,
        features: list[str] | None = None,
        embedding: str | None = None,
    ) -> None:
        super().__init__()
        maker = resolve_target(target)
        given = {
            "num_classes": num_classes,
            "in_channels": in_channels,
            "in_chans": in_channels,
            "image_size": tuple(image_size),
        }
        self.target, self.num_classes = target, num_classes
        self.network = call(target, maker, dict(arguments or {}), given)
        self.stages, self.embedding = tuple(features or ()), embedding
        self.head: str | None = None  # the layer that gives the logits, as `look` finds it
        self.head_remarks: tuple[str, ...] = ()  # what a user should know about that layer
        self.imports = [Path(str(module.__file__)).name for module in own.imports(maker)]

    @classmethod
    def provenance(cls, arguments: Mapping[str, Any]) -> str | None:
        """Return the sha256 of the target's source file; files that it imports are not read."""
        target = arguments["target"]
        return own.digest(resolve_target(target), f"target={target}")

    def forward(self, images: Tensor) -> Outputs:
        modules = dict(self.network.named_modules())
        named = {f"stage{number}": name for number, name in enumerate(self.stages, start=1)}
        named |= {"embedding": self.embedding} if self.embedding is not None else {}
        outputs = {name: modules[module] for name, module in named.items() if module in modules}
        inputs = {"embedding": modules[self.head]} if self.head is not None else {}
        with captured(outputs, inputs) as seen:
            result = self.network(self.own(images))
        if isinstance(result, Outputs):
            return result
        logits, _ = taken(result, images.shape[0], self.num_classes)
        embedding = seen.pop("embedding", logits[:, :0])
        embedding = embedding.mean((2, 3)) if embedding.ndim == 4 else embedding.flatten(1)
        return Outputs(logits, {stage: seen[stage] for stage in named if stage in seen}, {}, embedding)

    def look(self, images: Tensor) -> tuple[str, ...]:
        """Find the logits in what the network returns and, in eval mode, the layer that gives them."""
        modules = dict(self.network.named_modules())
        for name in [*self.stages, *([self.embedding] if self.embedding is not None else [])]:
            if name not in modules or not name:
                near = difflib.get_close_matches(name, modules, n=4) or [known for known in modules if known][:8]
                raise Unfit(f"has no module called {name}; near: {', '.join(near)}")
        layers = {name: part for name, part in modules.items() if isinstance(part, nn.Linear | nn.Conv2d)}
        with ran(layers | {name: modules[name] for name in self.stages}) as seen:
            result = self.network(images)
        if isinstance(result, Outputs):
            return ()
        logits, remark = taken(result, len(images), self.num_classes)
        remarks = [remark] if remark else []
        remarks += overwritten(seen, self.stages)
        if self.imports:
            files = ", ".join(self.imports)
            remarks.append(f"is checked for changes in its own file only; after a change of {files}, type force=true")
        if self.embedding is None and not self.training:
            outputs = {name: output for name, (output, _) in seen.items() if name in layers}
            self.head_remarks = self._find_head(logits, outputs)
        return (*remarks, *self.head_remarks)

    def _find_head(self, logits: Tensor, ran: dict[str, Tensor]) -> tuple[str, ...]:
        """Find the head, the layer that gives the logits, among those that ran, and return remarks about it.

        `ran` holds their outputs in order. If no layer gives the logits exactly, the layer that ran last is taken if it
        is linear and as wide: the logits may be its outputs, scaled or after log_softmax. The input of the head is the
        embedding.
        """
        linear = [name for name, part in self.network.named_modules() if isinstance(part, nn.Linear)]
        exact = [name for name, output in ran.items() if gives(output, logits)]
        latest = next(reversed(ran), "")
        if exact:
            self.head = linear[-1] if linear and linear[-1] in exact else exact[-1]
        elif latest in linear and ran[latest].shape[-1] == logits.shape[1]:
            self.head = latest
        else:
            return (
                "has no layer whose outputs are its logits, so its embedding is unknown; a loss that "
                "compares embeddings needs embedding=MODULE",
            )
        return (
            ()
            if self.head in linear[-1:]
            else (f"has {self.head} as its head: the input of the head is the embedding",)
        )


def gives(output: Tensor, logits: Tensor) -> bool:
    """Return whether a layer's output is the logits, (N, C), also after a mean over places, with or without a ReLU."""
    pooled = [output.flatten(1)]
    if output.ndim == 4:
        pooled += [output.mean((2, 3)), output.relu().mean((2, 3))]
    elif output.ndim == 3:
        pooled += [output.mean(1)]
    return any(one.shape == logits.shape and torch.allclose(one, logits, rtol=1e-4, atol=1e-6) for one in pooled)


def taken(result: Any, count: int, num_classes: int) -> tuple[Tensor, str]:
    """Return the logits in a network's result for `count` images, and a remark if the result is no tensor.

    In a tuple, list, mapping or data class, they are the entry called logits, or else the first entry. Raise Unfit
    if neither is a tensor (count, num_classes).
    """
    if isinstance(result, Tensor):
        return result, ""
    entries: list[Any] = []
    if isinstance(result, Mapping):
        entries = list(result.values())
    elif isinstance(result, tuple | list):
        entries = list(result)
    elif dataclasses.is_dataclass(result):
        entries = [getattr(result, field.name) for field in dataclasses.fields(result)]
    named = result.get("logits") if isinstance(result, Mapping) else getattr(result, "logits", None)
    kind = f"returns a {type(result).__name__}"
    for name, value in (("entry called logits", named), ("first entry", next(iter(entries), None))):
        if isinstance(value, Tensor) and value.shape == (count, num_classes):
            rest = ", the rest is ignored" if len(entries) > 1 else ""
            return value, f"{kind}: its {name} is used as the logits{rest}"
    shape = f"({count}, {num_classes})"
    raise Unfit(f"{kind}, in which neither an entry called logits nor the first one is a tensor of shape {shape}")


def resolve_target(target: str) -> Callable[..., nn.Module]:
    """Return what `target` names, imported and not called. Raise ValueError as `own.resolve` does."""
    maker: Callable[..., nn.Module] = own.resolve(target, NETWORK, "target")
    return maker


def is_network_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def is_known_factory(value: Any) -> bool:
    """Return whether `value` is one of torchvision's or timm's own functions that build a network."""
    if not inspect.isfunction(value):
        return False
    package = value.__module__.partition(".")[0]
    if package == "torchvision":
        import torchvision.models

        builders = (torchvision.models.get_model_builder(name) for name in torchvision.models.list_models())
        return value is torchvision.models.get_model or any(value is builder for builder in builders)
    if package == "timm":
        timm = importlib.import_module("timm")
        return value is timm.create_model or (
            timm.is_model(value.__name__) and value is timm.model_entrypoint(value.__name__)
        )
    return False


NETWORK = own.Kind(
    "network",
    "networks",
    "an nn.Module subclass, or a model factory of torchvision or timm",
    lambda value: is_network_class(value) or is_known_factory(value),
)


def call(target: str, maker: Callable[..., nn.Module], arguments: dict[str, Any], offered: dict[str, Any]) -> nn.Module:
    """Return the network, built with `arguments` and with those of the data's properties that it accepts."""
    accepted = inspect.signature(maker).parameters
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    if not free and (unknown := sorted(set(arguments) - set(accepted))):
        keys = ", ".join(name for name in accepted) or "none"
        raise ValueError(f"arguments: {target} takes no {unknown[0]}; it takes: {keys}")
    library = maker.__module__.partition(".")[0] if inspect.isfunction(maker) else ""
    if library == "timm":
        names = {"num_classes", "in_chans"}
    elif library == "torchvision":
        names = {"num_classes"} if arguments.get("weights") is None else set()
    else:
        names = set(accepted)
    try:
        network = maker(**{name: value for name, value in offered.items() if name in names} | arguments)
    except (Exception, SystemExit) as error:
        if memory.ran_out(error):
            raise
        raise ValueError(f"target={target} cannot be built: {own.words(error)}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"target={target} returned {type(network).__name__}, not an nn.Module")
    return network
