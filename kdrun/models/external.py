"""A network of the user's own, or of a library, by the name it is imported under."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.nn as nn
from torch import Tensor

from kdrun.models.base import Classifier, Outputs, captured
from kdrun.models.weights import file_digest

__all__ = ["External"]


class External(Classifier):
    """Wraps a class or factory named "package.module:Class", which is called only if it makes networks.

    The network may return logits or kdrun's own `Outputs`. It is given num_classes, in_channels
    (in_chans for timm) and image_size where its signature has these names and `arguments` does not set them.

    target: "package.module:Class", importable from here (the current folder counts), an nn.Module subclass
        or a model factory of torchvision or timm.
    arguments: keyword arguments of the target.
    features: names of modules whose outputs become stage1, stage2, … (ignored if it returns `Outputs`).
    embedding: name of the module whose pooled output is the embedding; null: what enters the last linear
        layer.
    """

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
        self.target = target
        self.network = call(target, maker, dict(arguments or {}), given)
        self.stages = tuple(features or ())
        linear = [name for name, part in self.network.named_modules() if isinstance(part, nn.Linear)]
        self.embedding, self.head = embedding, linear[-1] if linear else None
        names = [name for name, _ in self.network.named_modules() if name]
        for name in [*self.stages, *([embedding] if embedding is not None else [])]:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=4) or names[:8]
                raise ValueError(f"{target} has no module called {name}; near: {', '.join(near)}")

    @classmethod
    def provenance(cls, arguments: Mapping[str, Any]) -> str | None:
        """Sha256 of the file that the target is written in; what that file imports is not followed."""
        maker = resolve_target(arguments["target"])
        source = inspect.getsourcefile(maker)
        if source is None or not Path(source).is_file():
            raise ValueError(f"target: {arguments['target']} has no source file to take a checksum of")
        return file_digest(source)

    def forward(self, images: Tensor) -> Outputs:
        modules = dict(self.network.named_modules())
        outputs = {f"stage{number}": modules[name] for number, name in enumerate(self.stages, start=1)}
        inputs = {}
        if self.embedding is not None:
            outputs["embedding"] = modules[self.embedding]
        elif self.head is not None:
            inputs["embedding"] = modules[self.head]
        with captured(outputs, inputs) as seen:
            result = self.network(images)
        if isinstance(result, Outputs):
            return result
        if not isinstance(result, Tensor):
            raise TypeError(f"{self.target} returns {type(result).__name__}, not a tensor of logits")
        embedding = seen.pop("embedding", result)
        embedding = embedding.mean((2, 3)) if embedding.ndim == 4 else embedding.flatten(1)
        return Outputs(result, {stage: seen[stage] for stage in outputs if stage in seen}, {}, embedding)


def resolve_target(target: str) -> Callable[..., nn.Module]:
    """Import what `target` names and refuse it, uncalled, unless it makes networks.

    Raises ValueError for a malformed name, a module or attribute that does not exist, and anything but an
    nn.Module subclass or a model factory of torchvision or timm.
    """
    module_name, _, path = str(target).partition(":")
    if not path or not all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")]):
        raise ValueError(f"target={target}: write it as package.module:Class")
    if os.getcwd() not in sys.path:
        # For good, not only during the import: the user's module may import its neighbours later.
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        where = f"looked in {os.getcwd()} and the installed packages"
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise ValueError(f"target={target}: there is no module {missing} ({where})") from None
        raise ValueError(f"target={target}: {module_name} imports {missing}, which is missing") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"target={target}: importing {module_name} fails with {reason}") from error
    module = found
    for part in path.split("."):
        if not hasattr(found, part):
            networks = [name for name, value in vars(module).items() if is_network_class(value)]
            near = difflib.get_close_matches(path, networks, n=4) or networks[:8]
            known = ", ".join(near) or "none"
            raise ValueError(f"target={target}: {module_name} has no {path}; its networks: {known}")
        found = getattr(found, part)
    if not (is_network_class(found) or is_known_factory(found)):
        raise ValueError(
            f"target={target} is no network but {type(found).__name__}, and was not called: "
            "name an nn.Module subclass, or a model factory of torchvision or timm"
        )
    maker: Callable[..., nn.Module] = found
    return maker


def is_network_class(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, nn.Module)


def is_known_factory(found: Any) -> bool:
    """Whether `found` is a function by which torchvision or timm themselves build a network."""
    if not inspect.isfunction(found):
        return False
    package = found.__module__.partition(".")[0]
    if package == "torchvision":
        import torchvision.models

        builders = (torchvision.models.get_model_builder(name) for name in torchvision.models.list_models())
        return found is torchvision.models.get_model or any(found is builder for builder in builders)
    if package == "timm":
        timm = importlib.import_module("timm")
        return found is timm.create_model or (
            timm.is_model(found.__name__) and found is timm.model_entrypoint(found.__name__)
        )
    return False


def call(target: str, maker: Callable[..., nn.Module], arguments: dict[str, Any], offered: dict[str, Any]) -> nn.Module:
    """The network, with those of the data's properties that the signature asks for."""
    accepted = inspect.signature(maker).parameters
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    if not free and (unknown := sorted(set(arguments) - set(accepted))):
        own = ", ".join(name for name in accepted) or "none"
        raise ValueError(f"arguments: {target} takes no {unknown[0]}; it takes: {own}")
    library = maker.__module__.partition(".")[0] if inspect.isfunction(maker) else ""
    if library == "timm":
        wanted = {"num_classes", "in_chans"}
    elif library == "torchvision":
        wanted = {"num_classes"} if arguments.get("weights") is None else set()
    else:
        wanted = set(accepted)
    network = maker(**{name: value for name, value in offered.items() if name in wanted} | arguments)
    if not isinstance(network, nn.Module):
        raise ValueError(f"target={target} made {type(network).__name__}, not an nn.Module")
    return network
