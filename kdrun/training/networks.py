"""Networks from specs and artifacts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from kdrun import models
from kdrun.artifact import Artifact
from kdrun.files import RunFailed
from kdrun.models.base import Classifier, Outputs, parameters_device
from kdrun.models.renormalised import Renormalised
from kdrun.spec import Spec
from kdrun.training.distributed import Ranks


def build_model(spec: Spec, *, seed: int | None = None, weights: str | None = None, blank: bool = False) -> Classifier:
    """Build a spec's network with weights drawn with `seed` or read from a file; `blank` if they are loaded later."""
    described = spec.model
    if seed is not None and described.get("init"):  # a second student of the same model starts from other weights
        digest = hashlib.sha256(f"{seed}/{described['init']}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")  # torch's CPU generator reads 32 bits
    start = {"weights": weights} if weights else {}  # a file takes precedence over published weights
    images = spec.data["mean"], spec.data["std"]
    own = described.get("normalisation") or images  # the normalisation that its weights were trained with
    network = models.build(
        described["use"],
        num_classes=described["num_classes"],
        in_channels=described["in_channels"],
        image_size=tuple(described["image_size"]),
        mean=own[0],
        std=own[1],
        seed=seed,
        blank=blank,
        **{**described["arguments"], **start},
    )
    return network if own is images else Renormalised(network, images, own)


def load_weights(spec: Spec, file: Path) -> Classifier:
    """Build the network that a spec describes and load its weights from a file."""
    network = build_model(spec, blank=True)
    models.load_weights(network, file)
    return network


def load_model(artifact: Artifact, device: torch.device | None = None) -> nn.Module:
    """Return an artifact's trained network, on the CPU unless a device is given.

    Raise RunFailed if it diverged, ValueError if it is another model's answers.
    """
    if artifact.spec.answered:
        raise ValueError(
            f"{artifact.folder.name}: is a file of answers to training images, no network that could be run; choose "
            "the baseline or the student (role=student)"
        )
    if not artifact.finished:
        raise RunFailed(f"{artifact.folder.name} {artifact.result['status']}: {artifact.result['reason']}")
    network = load_weights(artifact.spec, artifact.folder / "model.safetensors")
    return network if device is None else on_device(network, device)


def not_finite(source: str, part: str) -> str:
    """Return the message for weights from elsewhere whose outputs on a part of the data are not finite."""
    return (
        f"{source}: its outputs on the {part} images are not finite: the weights are too large to compute with, or "
        "another precision is needed; name another file"
    )


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, with 4-D weights in channels_last."""
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def replicate(network: nn.Module | None, spec: Spec, device: torch.device, ranks: Ranks) -> nn.Module:
    """Return rank 0's network on the device of each rank; the others, which may lack its files, pass None."""
    copy = on_device(build_model(spec, blank=True) if network is None else network, device)
    ranks.broadcast_tensors(*copy.parameters(), *copy.buffers())
    return copy


class ChangedBatch(RunFailed):
    """A network wrote into the images that other networks of its cohort read."""


@contextmanager
def guard_inputs(images: Tensor, name: str) -> Iterator[None]:
    """Raise ChangedBatch if a forward pass within this context writes into images that other networks read.

    Networks that always do so were detected when they were built and get copies; this catches those that do so for
    some images only. torch counts the writes on the host, so no synchronisation is needed.
    """
    version = images._version
    yield
    if images._version != version:
        raise ChangedBatch(
            f"{name} changed the images of a batch in place, which other networks also use; copy them in its forward: "
            "x = x.clone()"
        )


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module normalises by the statistics of a batch."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def sample_outputs(model: nn.Module, spec: Spec, *, strong: bool = False) -> Outputs:
    """Return a network's outputs for two blank images, from which terms take the shapes of their projections.

    With `strong`, the same outputs are added as those for a strong view.
    """
    height, width = spec.model["image_size"]
    device = parameters_device(model)
    was = model.training
    with torch.no_grad():  # forward, because a call would compile a compiled network for this batch shape
        outputs: Outputs = model.eval().forward(torch.zeros(2, spec.model["in_channels"], height, width, device=device))
    model.train(was)
    return outputs._replace(strong=outputs) if strong else outputs
