"""Any classification network of torchvision, from scratch or with its published weights."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from kdrun import own
from kdrun.models.base import Classifier, Outputs, captured, overwritten, ran
from kdrun.models.weight_files import file_digest, is_file_name, read_weights

__all__ = ["Torchvision"]


class Torchvision(Classifier):
    """A torchvision network with named stage outputs.

    With published weights the images are converted to what those weights expect: their mean and standard
    deviation, their crop size (antialiased bilinear, the whole image), and three channels (a grey channel is
    repeated). The classification layer is initialised anew if the number of classes differs.

    arch: torchvision's name, such as resnet18.
    weights: null, DEFAULT, or a name such as IMAGENET1K_V1.
    input_size: side of the square that images are resized to; null: the weights' crop size, or the
        data's own size if there are no weights.
    features: modules whose outputs become stage1, stage2, …; empty: layer1 to layer4 of ResNets (with
        pre-activations), nothing for other networks.
    """

    slow_to_import = True

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
        arch: str,
        weights: str | None = None,
        input_size: int | None = None,
        features: list[str] | None = None,
        blank: bool = False,
    ) -> None:
        super().__init__()
        check_name(arch)
        if input_size is not None and input_size < 1:
            raise ValueError(f"input_size={input_size}: a side of at least 1 pixel is needed")
        size = image_size if input_size is None else (input_size, input_size)
        self.advice = advice(arch, size, own_size=weights is None)
        if weights is None:
            try:
                network = from_scratch(arch, num_classes, in_channels, size)
            except Exception as error:
                seen = f"{in_channels}-channel images of {size[0]}×{size[1]}"
                raise ValueError(f"arch={arch} cannot take {seen}: {own.words(error)}{self.advice}") from error
        else:
            if mean is None or std is None:
                raise ValueError(f"weights={weights}: the data's mean and std are needed, to undo them")
            if in_channels not in (1, 3):
                raise ValueError(
                    f"weights={weights}: {arch} takes 3 channels, or 1 that is repeated, not {in_channels}"
                )
            chosen = published(arch, weights)
            preset = chosen.transforms()
            if input_size is None:
                size = (preset.crop_size[0], preset.crop_size[0])
            network = pretrained(arch, chosen, num_classes, blank=blank)
            # (x·std + mean − mean_w) / std_w in one multiplication and one addition
            ours = torch.tensor([mean, std], dtype=torch.float32).expand(2, -1).reshape(2, in_channels)
            mean_w, std_w = torch.tensor([preset.mean, preset.std])
            self.scale = nn.Buffer((ours[1] / std_w).reshape(1, 3, 1, 1), persistent=False)
            self.shift = nn.Buffer(((ours[0] - mean_w) / std_w).reshape(1, 3, 1, 1), persistent=False)
        self.size, self.published_weights = size, weights is not None
        self.network = network
        stages, self.has_preactivations = stage_modules(network, features)
        self.stages = tuple(stages)
        self.head = classification_layers(network)[-1]

    @classmethod
    def provenance(cls, arguments: Mapping[str, Any]) -> str | None:
        """Return the sha256 of the published weights' address, which contains the hash of their content."""
        weights = arguments.get("weights")
        if weights is None or is_file_name(weights):
            return None
        return hashlib.sha256(published(arguments["arch"], weights).url.encode()).hexdigest()

    def look(self, images: Tensor) -> tuple[str, ...]:
        """Return a remark for each named stage whose output a later layer changes in place."""
        modules = dict(self.network.named_modules())
        with ran({name: modules[name] for name in self.stages}) as seen:
            self(images)
        return tuple(overwritten(seen, self.stages))

    def forward(self, images: Tensor) -> Outputs:
        x = self.own(images)
        if x.shape[-2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        if self.published_weights:
            x = x * self.scale + self.shift
        modules = dict(self.network.named_modules())
        outputs = {f"stage{number}": modules[name] for number, name in enumerate(self.stages, start=1)}
        inputs = {"embedding": modules[self.head]}
        if self.has_preactivations:
            inputs |= {f"before {stage}": layer[-1].relu for stage, layer in outputs.items()}
        with captured(outputs, inputs) as seen:
            logits = self.network(x)
        return Outputs(
            logits,
            {stage: seen[stage] for stage in outputs},
            {stage: seen[f"before {stage}"] for stage in outputs if self.has_preactivations},
            seen["embedding"].flatten(1) if seen["embedding"].ndim == 2 else seen["embedding"].mean((2, 3)),
        )


def check_name(arch: str) -> None:
    import torchvision.models

    names = torchvision.models.list_models(module=torchvision.models)
    if arch not in names:
        near = difflib.get_close_matches(arch, names, n=4)
        near = near or [name for name in names if arch[:3] and name.startswith(arch[:3])] or names[:8]
        raise ValueError(f"arch={arch}: torchvision has no such classification network; near: {', '.join(near)}")


def advice(arch: str, size: tuple[int, int], *, own_size: bool) -> str:
    """Return what to type if `arch` cannot take the images' size; `own_size` means that it is built for that size.

    A vision transformer built for that size needs a multiple of its patch size, in which its name ends. Other networks
    need at least torchvision's smallest size; if the images have that, the size of the published weights is advised.
    """
    import torchvision.models

    if own_size and (patch := re.fullmatch(r"vit_\w+_(\d+)", arch)):
        side = -(-max(size) // int(patch[1])) * int(patch[1])
        return f"; type input_size={side}, a multiple of its patches' {patch[1]} pixels"
    published = list(torchvision.models.get_model_weights(arch))
    if not published:
        return "; set input_size to resize the images"
    usual = published[0].transforms().crop_size[0]
    side = published[0].meta["min_size"][0]
    if arch.startswith("vit_") or min(size) >= side:
        return f"; type input_size={usual}, the size of its published weights"
    return f"; type input_size={side}, which torchvision names as its smallest, or larger (usual: {usual})"


def from_scratch(arch: str, num_classes: int, in_channels: int, size: tuple[int, int]) -> nn.Module:
    """Return the network with fresh weights; its first convolution takes the data's own number of channels."""
    import torchvision.models

    vit = {"image_size": size[0]} if arch.startswith("vit_") and size[0] == size[1] else {}
    network: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **vit)
    if in_channels != 3:
        parts = network.named_modules()
        name, stem = next((name, part) for name, part in parts if isinstance(part, nn.Conv2d))
        settings = {key: getattr(stem, key) for key in ("kernel_size", "stride", "padding", "dilation")}
        fresh = nn.Conv2d(in_channels, stem.out_channels, bias=stem.bias is not None, **settings)
        nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
        network.set_submodule(name, fresh)
    return without_auxiliary_heads(network)


def published(arch: str, weights: str) -> Any:
    """Return the member of torchvision's weights enumeration for `arch`. Raise ValueError if there is none."""
    import torchvision.models

    check_name(arch)
    known = torchvision.models.get_model_weights(arch)
    if weights not in known.__members__:
        names = ", ".join(known.__members__) or "none"
        raise ValueError(f"weights={weights}: torchvision publishes for {arch}: {names}; or name a file")
    return known[weights]


def pretrained(arch: str, chosen: Any, num_classes: int, *, blank: bool) -> nn.Module:
    """Return the network with published weights (without, if `blank`), and a fresh head if the classes differ."""
    import torchvision.models

    network: nn.Module
    if blank:
        network = torchvision.models.get_model(arch, weights=None, num_classes=len(chosen.meta["categories"]))
        if hasattr(network, "transform_input"):  # set by torchvision with published weights
            network.transform_input = True  # type: ignore[assignment]
    else:
        network = torchvision.models.get_model(arch, weights=fetched(arch, chosen), progress=False)
    for name in classification_layers(network):
        old = network.get_submodule(name)
        if isinstance(old, nn.Linear) and old.out_features != num_classes:
            network.set_submodule(name, nn.Linear(old.in_features, num_classes))
        elif isinstance(old, nn.Conv2d) and old.out_channels != num_classes:
            network.set_submodule(name, nn.Conv2d(old.in_channels, num_classes, 1))
    return without_auxiliary_heads(network)


def fetched(arch: str, chosen: Any) -> Any:
    """Return the published weights, once their file is in torch's cache, undamaged and free of code."""
    path = Path(torch.hub.get_dir(), "checkpoints", Path(chosen.url).name)
    # torchvision's file names end in the first digits of their checksum.
    checksum = path.stem.rpartition("-")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(chosen.url, str(path), hash_prefix=checksum, progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise ValueError(
                f"cannot fetch the weights of {arch} ({error}). Without network: get {chosen.url} elsewhere "
                f"and put it at {path}"
            ) from None
    if not file_digest(path).startswith(checksum):
        raise ValueError(f"{path} is not the published file (its checksum differs): delete it and try again")
    # Read once with only tensors allowed; torchvision itself would unpickle any content.
    read_weights(path)
    return chosen


def without_auxiliary_heads(network: nn.Module) -> nn.Module:
    """Return the network without the side classifiers that Inception and GoogLeNet return in training mode."""
    if hasattr(network, "aux_logits"):
        network.aux_logits = False  # type: ignore[assignment]
        for name in ("AuxLogits", "aux1", "aux2"):
            if hasattr(network, name):
                setattr(network, name, None)
    return network


def classification_layers(network: nn.Module) -> list[str]:
    """Return the names of the layers that give logits, the main one last; SqueezeNet's is a convolution."""
    linear = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    return linear[-1:] or [name for name, part in network.named_modules() if isinstance(part, nn.Conv2d)][-1:]


def stage_modules(network: nn.Module, features: list[str] | None) -> tuple[list[str], bool]:
    """Return the names of the modules that are taken as stages, and whether they have pre-activations."""
    from torchvision.models.resnet import ResNet

    names = dict(network.named_modules())
    if features:
        for name in features:
            if name not in names or not name:
                near = difflib.get_close_matches(name, list(names), n=4)
                near = near or [known for known in names if known and "." not in known]
                raise ValueError(f"features: no module is called {name}; near: {', '.join(near)}")
        return list(features), False
    if not isinstance(network, ResNet):
        return [], False
    stages = ["layer1", "layer2", "layer3", "layer4"]
    for stage in stages:
        # In place, the ReLU would overwrite the pre-activation.
        names[stage][-1].relu.inplace = False
    return stages, True
