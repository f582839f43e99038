"""torch's optimisers without their ties to torch.compile, which would cost every start one to two seconds."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

UNTIED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
Kind = TypeVar("Kind", bound=type[Optimizer])


def untied(kind: Kind) -> Kind:
    """Give an optimiser of the same arithmetic, state and name, that does not import torch's compiler.

    torch wraps these methods so that its compiler skips them, and `step` so that it breaks off around it; either
    imports the compiler where nothing is compiled. `step` keeps what it does without a gradient.
    """
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in UNTIED}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    made: Any = type(kind.__name__, (kind,), {**methods, "__doc__": kind.__doc__})
    return made  # type: ignore[no-any-return]


SGD, Adam, AdamW = untied(torch.optim.SGD), untied(torch.optim.Adam), untied(torch.optim.AdamW)
