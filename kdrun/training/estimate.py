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
    """Bytes of one learner: what it holds throughout, and the activations of its own step."""

    persistent: int
    activations: int


def memory(model: nn.Module, spec: Spec) -> int:
    """Return the bytes of weights, gradients, optimiser state, averages and saved activations of one learner.

    The data set, the teacher's activations (freed layer by layer) and the libraries' workspaces are not included.
    """
    return sum(size(model, spec))


def size(model: nn.Module, spec: Spec) -> MemoryUse:
    """Estimate the memory of one learner; activations are the tensors that autograd saves for one full batch.

    Activations are linear in the batch size, so batches of two and three images are enough; a loss that compares two
    views saves those of both. (torch's "meta" device would need no computation, but it imports torch's compiler, which
    takes far longer than five images.)
    """
    copied = copy.deepcopy(model).cpu().train()
    two, three = (_saved(copied, spec, images) for images in (2, 3))
    recipe = spec.recipe
    averages = 1 if recipe["ema_decay"] else 0
    copies = 3 + STATE[recipe["optimizer"]] + averages  # 3: the weight, its gradient and its value at the best epoch
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    views = 1 if losses.strong_view(spec.objective) is None else 2
    return MemoryUse(copies * weights, views * (two + (recipe["batch_size"] - 2) * (three - two)))


def _saved(model: nn.Module, spec: Spec, images: int) -> int:
    """Return the bytes that autograd saves in a forward pass: each storage once, without weights."""
    saved: list[Tensor] = []  # kept alive, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    blank = torch.zeros(images, spec.model["in_channels"], *spec.model["image_size"])
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model(blank)
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in saved)}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    return sum(nbytes for address, nbytes in storages.items() if address not in weights)


def learner_size(request: Request) -> MemoryUse:
    """Estimate a request's learner including its terms, on the assumption that teachers' outputs are like its own."""
    spec = request.spec
    model = build_model(spec, blank=True)
    own = size(model, spec)
    objective = losses.build(spec.objective)
    outputs = sample_outputs(model, spec, strong=objective.needs_strong)
    count = 1 + max(max(heard.teachers) for heard in objective.heard.values())
    held = objective.memory(outputs, [outputs] * count, request.setting)
    return MemoryUse(own.persistent + sum(held.values()), own.activations)


def split(groups: Sequence[Sequence[Request]], room: int) -> list[list[Request]]:
    """Split the groups of a cohort into parts that each fit into `room` bytes, or are a single group.

    Learners take steps in turn, so a part needs the persistent memory of all and the activations of the largest group.
    """
    parts: list[list[Request]] = [[]]
    persistent = activations = 0
    for group in groups:
        sizes = [learner_size(request) for request in group]
        own_persistent, own_activations = sum(s.persistent for s in sizes), sum(s.activations for s in sizes)
        if parts[-1] and persistent + own_persistent + max(activations, own_activations) > room:
            parts.append([])
            persistent = activations = 0
        parts[-1] += group
        persistent, activations = persistent + own_persistent, max(activations, own_activations)
    return parts
