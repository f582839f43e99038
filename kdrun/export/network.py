"""Trained networks as plain modules, with their preprocessing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kdrun.artifact import Artifact
from kdrun.export.choose import ROLE
from kdrun.export.sheet import CARD, NAME, Sheet, in_folder, sheet_in
from kdrun.results.find import find_artifact
from kdrun.spec import Spec
from kdrun.store import Store
from kdrun.training.networks import load_model, load_weights


class Trained(nn.Module):
    """A trained network from raw images, uint8 (N, C, H, W) in 0..255 or float in [0, 1], to logits (N, classes)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, spec: Spec, classes: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.classes: tuple[str, ...] = tuple(classes)
        self.image_size: tuple[int, int] = tuple(spec.model["image_size"])
        self.register_buffer("mean", torch.tensor(spec.data["mean"]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.data["std"]).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise and classify."""
        pixels = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images
        logits: Tensor = self.network((pixels - self.mean) / self.std).logits
        return logits


def trained(artifact: Artifact) -> Trained:
    """Load an artifact's network in eval mode on the CPU. Raise RunFailed if it has none."""
    return Trained(load_model(artifact), artifact.spec, artifact.result["classes"]).eval()


def open_weights(file: Path, sheet: Sheet) -> Trained:
    """Load exported weights in eval mode on the CPU. Raise ValueError if they do not fit their description."""
    spec = Spec.from_json(json.dumps(sheet.spec))
    return Trained(load_weights(spec, file), spec, sheet.classes).eval()


def load_trained(run: str, role: str, *, seed: int | None, outputs: str | None) -> Trained:
    """Load a run's network of a role, or an exported network, in eval mode on the CPU."""
    place = Path(run).expanduser()
    if place.suffix == ".safetensors" or (place / NAME).is_file():
        if role != ROLE or seed is not None:
            raise ValueError(f"{run}: contains a single network; leave role and seed out")
        return _exported(place)
    root = Path(outputs or os.environ.get("KDRUN_OUTPUTS", "outputs"))
    fingerprint, place = find_artifact(str(run), role, root, seed=seed)
    artifact = Store(place).find(fingerprint)
    if artifact is None:
        raise ValueError(f"{run}: its {role} {fingerprint} is no longer in {place}")
    return trained(artifact)


def _exported(place: Path) -> Trained:
    file = in_folder(place) or place
    if file.suffix != ".safetensors":
        raise ValueError(f"{file}: contains a graph, not a kdrun network; its {CARD} shows how to load it")
    return open_weights(file, sheet_in(file))
