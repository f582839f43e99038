"""Estimated memory of a training, from one forward pass on torch's "meta" device (nothing is computed)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from kdrun.spec import Spec

STATE = {"sgd": 1, "adam": 2, "adamw": 2}  # tensors per parameter that the optimiser keeps


def memory(model: nn.Module, spec: Spec) -> int:
    """Give the bytes of weights, gradients, optimiser state, averages and saved activations of one learner.

    The activations are those that autograd saves in a forward pass over one full batch. The data set, the
    teacher's activations (freed as it goes) and the libraries' own working space are not in it.
    """
    meta = copy.deepcopy(model).to("meta").train()
    parameters = sum(p.numel() * p.element_size() for p in meta.parameters())
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[id(tensor)] = tensor.numel() * tensor.element_size()
        kept.append(tensor)  # alive, so that no id is used twice
        return tensor

    kept: list[Tensor] = []
    height, width = spec.model["image_size"]
    images = torch.zeros(spec.recipe["batch_size"], spec.model["in_channels"], height, width, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        meta(images)
    copies = 2 + STATE[spec.recipe["optimizer"]] + (1 if spec.recipe["ema_decay"] else 0) + 1  # + the best epoch's
    weights = {id(p) for p in meta.parameters()}
    return copies * parameters + sum(b for i, b in saved.items() if i not in weights)
