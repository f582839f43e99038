"""Trained networks as plain modules, with their preprocessing."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from kdrun.results.collect import find_artifact
from kdrun.store import Artifact, Store
from kdrun.training.networks import load_model


class Trained(nn.Module):
    """A trained network on raw images.

    Takes uint8 (N, C, H, W) in 0..255, or float in [0, 1]; gives logits (N, num_classes).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, artifact: Artifact) -> None:
        super().__init__()
        self.network = load_model(artifact)
        self.classes: tuple[str, ...] = tuple(artifact.result["classes"])
        self.image_size: tuple[int, int] = tuple(artifact.spec.model["image_size"])
        self.register_buffer("mean", torch.tensor(artifact.spec.data["mean"]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(artifact.spec.data["std"]).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise and classify."""
        pixels = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images
        logits: Tensor = self.network((pixels - self.mean) / self.std).logits
        return logits


def load_trained(run: str, role: str, *, seed: int | None, outputs: str | None) -> Trained:
    """Find a run's network of a role and load it in eval mode on the CPU."""
    root = Path(outputs or os.environ.get("KDRUN_OUTPUTS", "outputs"))
    fingerprint = find_artifact(str(run), role, root, seed=seed)
    artifact = Store(root / "store").find(fingerprint)
    if artifact is None:
        raise ValueError(f"{run}: its {role} {fingerprint} is no longer in {root / 'store'}")
    return Trained(artifact).eval()
