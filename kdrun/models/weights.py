"""Loading weight files into networks: names and shapes must fit, and the numbers must be usable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from kdrun.checks import file_and_entry
from kdrun.models.weight_files import read_weights

MOST_PREFIXES = 4  # common prefixes of names that are removed at most
COUNTER = "n_averaged"  # entry that torch's AveragedModel adds to the weights


def load_weights(module: nn.Module, weights: str | Path) -> tuple[str, ...]:
    """Fill `module` from FILE, or from one entry of it, FILE:ENTRY; every name and shape must fit.

    Prefixes that all names share, such as `module.`, are removed if the rest fits. A wrapped network (torchvision,
    external) also takes its own plain names. Return remarks for the user: the entry and the prefix.
    Raise ValueError if several entries fit; if none does, with the first missing, unexpected and mis-shaped names,
    which reveal weights of another architecture; if the model's type cannot hold a tensor's numbers; and if learned
    numbers are not finite.
    """
    path, entry = file_and_entry(weights) or (Path(weights), None)
    states = read_weights(path)
    if entry is not None:
        if entry not in states:
            single = f"none: the file is a single state dict, so leave :{entry} out"
            known = ", ".join(name for name in states if name) or single
            raise ValueError(f"{weights}: {path.name} has no entry {entry} with a state dict; it has {known}")
        states = {entry: states[entry]}
    inner = getattr(module, "network", None)
    targets = [module, inner] if isinstance(inner, nn.Module) else [module]
    fitting = [
        (name, prefix, target, state)
        for name, whole in states.items()
        for prefix, target, state in _matched(whole, targets)
    ]
    if not fitting:
        raise ValueError(_complaint(str(weights), states, targets))
    if len(fitting) > 1:
        names = [name for name, *_ in fitting]
        typed = " or ".join(f"{path}:{name}" for name in names)
        raise ValueError(f"{path}: contains {len(names)} state dicts that fit, {', '.join(names)}; type {typed}")
    ((name, prefix, target, state),) = fitting
    _refuse_unusable(str(weights), target, state)
    target.load_state_dict(state)
    _refuse_not_finite(str(weights), target)
    remarks = [f"starts from {name} in {path.name}"] if name and entry is None else []
    if prefix:
        remarks.append(f"starts from the weights in {path.name}, without the prefix {prefix} of their names")
    return tuple(remarks)


def _matched(state: dict[str, Tensor], targets: list[nn.Module]) -> Iterator[tuple[str, nn.Module, dict[str, Tensor]]]:
    """Yield the first reading of a state dict that fits a target, with the removed prefix, or nothing."""
    for prefix, names in _readings(state):
        for target in targets:
            if not any(_misfits(names, target.state_dict())):
                yield prefix, target, names
                return


def _readings(state: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield a state dict as it is, then without the first part that all its names share, and so on."""
    prefix = ""
    yield prefix, state
    if len(state) > 1 and COUNTER in state:
        state = {name: value for name, value in state.items() if name != COUNTER}
    for _ in range(MOST_PREFIXES):
        parts = {name.partition(".")[0] for name in state}
        if len(parts) != 1 or not all("." in name for name in state):
            return
        (first,) = parts
        prefix += f"{first}."
        state = {name.partition(".")[2]: value for name, value in state.items()}
        yield prefix, state


def _misfits(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Return the names that are missing, unexpected and of another shape."""
    return (
        [name for name in own if name not in state],
        [name for name in state if name not in own],
        [
            f"{name} {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
            for name in own
            if name in state and own[name].shape != state[name].shape
        ],
    )


def _complaint(weights: str, states: dict[str, dict[str, Tensor]], targets: list[nn.Module]) -> str:
    """Return the message for weights that do not fit, by the reading that fits best."""
    readings = [
        (name, target, _misfits(names, target.state_dict()))
        for name, state in states.items()
        for _, names in _readings(state)
        for target in targets
    ]
    name, target, (missing, unexpected, shapes) = min(readings, key=lambda r: sum(map(len, r[2])))
    complaints = [_listed("missing", missing), _listed("unexpected", unexpected), _listed("of another shape", shapes)]
    misfits = "; ".join(complaint for complaint in complaints if complaint)
    where = f"{weights}:{name}" if name and len(states) > 1 else weights
    return f"{where} does not fit {type(target).__name__}: {misfits}. Are they from another model?"


def _refuse_unusable(weights: str, target: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a tensor, converted to its type in the model, would not hold the same real numbers.

    Floating-point numbers of another precision are accepted, as are whole numbers of another type for counters.
    """
    for name, own in target.state_dict().items():
        value = state[name]
        if value.is_meta or value.is_quantized or value.layout != torch.strided:
            kind = "without values" if value.is_meta else "quantised" if value.is_quantized else "sparse"
        elif _keeps_its_numbers(value, own):
            continue
        else:
            kind = str(value.dtype).removeprefix("torch.")
        needed = str(own.dtype).removeprefix("torch.")
        raise ValueError(
            f"{weights}: {name} is {kind} in the file and {needed} in the model, which would change its numbers; save "
            "the state dict of the plain network, with its floating-point weights"
        )


def _keeps_its_numbers(value: Tensor, own: Tensor) -> bool:
    """Return whether the type of the model's tensor can hold the numbers of the file's tensor."""
    if value.dtype == own.dtype or (value.is_floating_point() and own.is_floating_point()):
        return True
    if value.is_complex() or own.is_complex() or own.is_floating_point():
        return False
    return torch.equal(value.to(own.dtype).to(value.dtype), value)


def _refuse_not_finite(weights: str, target: nn.Module) -> None:
    """Raise ValueError if a trained weight or running statistic is not finite; other buffers, such as masks, may be."""
    learned: dict[str, Tensor] = {name: p for name, p in target.named_parameters() if p.requires_grad}
    for place, module in target.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            learned |= {f"{place}.{name}".lstrip("."): buffer for name, buffer in module.named_buffers(recurse=False)}
    for name, value in learned.items():
        if value.is_floating_point() and not bool((finite := value.isfinite()).all()):
            number = value[~finite][0].item()
            raise ValueError(
                f"{weights}: {name} contains {number} in {int((~finite).sum())} of {value.numel()} places; these "
                f"weights "
                "diverged, or the file is damaged: name another one"
            )


def _listed(what: str, names: list[str], limit: int = 3) -> str:
    if not names:
        return ""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{what}: {', '.join(names[:limit])}{more}"
