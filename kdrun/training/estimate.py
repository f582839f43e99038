"""Estimated memory of a training, from two forward passes over a few blank images."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdrun import losses
from kdrun.spec import Spec
from kdrun.training.networks import build_model, sample_outputs
from kdrun.training.request import Request

STATE = {"sgd": 1, "adam": 2, "adamw": 2}  # tensors per parameter that the optimiser keeps


class MemoryUse(NamedTuple):
    """Bytes of one learner: what it keeps all along, and what lives only while it is its turn."""

    persistent: int
    activations: int


def memory(model: nn.Module, spec: Spec) -> int:
    """Return the bytes of weights, gradients, optimiser state, averages and saved activations of one learner.

    The data set, the teacher's activations (freed as it goes) and the libraries' own working space are not in it.
    """
    return sum(size(model, spec))


def size(model: nn.Module, spec: Spec) -> MemoryUse:
    """Estimate one learner; its activations are those that autograd saves in a forward pass over one full batch.

    All images of a batch add the same, so batches of two and three tell of any. (torch's "meta" device would
    compute nothing, but imports torch's compiler: far longer than five images take.)
    """
    copied = copy.deepcopy(model).cpu().train()
    two, three = (_saved(copied, spec, images) for images in (2, 3))
    return MemoryUse(_copies(spec) * _bytes(model), two + (spec.recipe["batch_size"] - 2) * (three - two))


def _saved(model: nn.Module, spec: Spec, images: int) -> int:
    """Count the bytes that autograd saves in a forward pass: each storage once, and no weights."""
    kept: list[Tensor] = []  # alive, so that no place in memory is used twice

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    blank = torch.zeros(images, spec.model["in_channels"], *spec.model["image_size"])
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model(blank)
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in kept)}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    return sum(held for place, held in storages.items() if place not in weights)


def learner_size(request: Request) -> MemoryUse:
    """Estimate the learner of a request with what its terms hold; a teacher's maps are taken to be as its own."""
    spec = request.spec
    model = build_model(spec, blank=True)
    own = size(model, spec)
    objective = losses.build(spec.objective)
    outputs = sample_outputs(model, spec)
    count = 1 + max(max(heard.teachers) for heard in objective.heard.values())
    held = objective.memory(outputs, [outputs] * count, request.setting)
    return MemoryUse(own.persistent + sum(held.values()), own.activations)


def split(groups: Sequence[Sequence[Request]], room: int) -> list[list[Request]]:
    """Split what would train in one cohort so that each part fits into `room` bytes, or is a single group.

    Learners take turns: all keep their weights, but only the largest one's activations count.
    """
    made: list[list[Request]] = [[]]
    kept = largest = 0
    for group in groups:
        sizes = [learner_size(request) for request in group]
        own, live = sum(s.persistent for s in sizes), sum(s.activations for s in sizes)
        if made[-1] and kept + own + max(largest, live) > room:
            made.append([])
            kept = largest = 0
        made[-1] += group
        kept, largest = kept + own, max(largest, live)
    return made


def _copies(spec: Spec) -> int:
    """Count the tensors per weight: itself, its gradient, the optimiser's, the average's and the best epoch's."""
    return 2 + STATE[spec.recipe["optimizer"]] + (1 if spec.recipe["ema_decay"] else 0) + 1


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())
