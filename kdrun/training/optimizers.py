"""The optimiser of a recipe: torch's own without its import of torch.compile, which costs 1 to 2 s at each start."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
Kind = TypeVar("Kind", bound=type[Optimizer])


def uncompiled(kind: Kind) -> Kind:
    """Return a subclass of an optimiser with the same arithmetic, state and name that does not import the compiler.

    torch wraps these methods so that its compiler skips them, and `step` so that it breaks the graph; both import the
    compiler even if nothing is compiled. `step` stays under no_grad.
    """
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in WRAPPED}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    made: Any = type(kind.__name__, (kind,), {**methods, "__doc__": kind.__doc__})
    return made  # type: ignore[no-any-return]


SGD, Adam, AdamW = uncompiled(torch.optim.SGD), uncompiled(torch.optim.Adam), uncompiled(torch.optim.AdamW)


def build(recipe: Mapping[str, Any], parameters: list[nn.Parameter]) -> Optimizer:
    """Return the optimiser of a recipe; one-dimensional parameters get weight decay only with `decay_norm_and_bias`."""
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if not recipe["decay_norm_and_bias"]:
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [g for g in groups if g["params"]]
    shared: dict[str, Any] = {"lr": recipe["lr"], "weight_decay": recipe["weight_decay"], "fused": True}
    if recipe["optimizer"] == "sgd":
        return SGD(groups, momentum=recipe["momentum"], nesterov=recipe["nesterov"], **shared)
    adam = {"adam": Adam, "adamw": AdamW}[recipe["optimizer"]]
    made: Optimizer = adam(groups, betas=tuple(recipe["betas"]), **shared)
    return made
