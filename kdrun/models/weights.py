"""Reading weight files: safetensors, or torch files of nothing but tensors."""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from kdrun.checks import file_and_entry

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
DEEPEST = 4  # dictionaries within dictionaries that are searched for weights, and prefixes that are taken off
COUNTER = "n_averaged"  # which torch's AveragedModel keeps beside the weights


def is_file_name(weights: str) -> bool:
    """Return whether `weights` names a file, or FILE:ENTRY, rather than a published set such as DEFAULT."""
    names = (weights, weights.rpartition(":")[0])
    return file_and_entry(weights) is not None or any(Path(name).suffix in SUFFIXES for name in names)


def file_digest(path: str | Path) -> str:
    """Return the sha256 of a file's content. Raise ValueError if there is no file."""
    if not Path(path).is_file():
        raise ValueError(f"weights: there is no file {Path(path).absolute()}")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(weights: str | Path) -> str:
    """Return the sha256 of what FILE or FILE:ENTRY names, with the entry. Raise ValueError if there is none."""
    path, entry = file_and_entry(weights) or (Path(weights), None)
    return file_digest(path) if entry is None else f"{file_digest(path)}:{entry}"


def read_weights(path: str | Path) -> dict[str, dict[str, Tensor]]:
    """Return all state dicts in a weight file, on the CPU, by the entry of each: model, or checkpoint.ema.

    A file that is nothing but a state dict has it under "". A torch file is always read with weights_only=True.
    Raise ValueError, with its name, if the file asks for a type whose loading could run code.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights: there is no file {path.absolute()}")
    if path.suffix == ".safetensors" or _looks_like_safetensors(path):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return {"": load_file(path)}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: not a whole safetensors file ({error})") from None
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that others than torch.save wrote
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: {_refused(path, error)}") from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a whole torch file ({_plain(error)})") from None
    states = dict(_state_dicts(content))
    if not states:
        raise ValueError(f"{path}: holds no state dict (names to tensors), but {type(content).__name__}")
    return states


def load_weights(module: nn.Module, weights: str | Path) -> tuple[str, ...]:
    """Fill `module` from FILE, or from the entry of it that FILE:ENTRY names; every name and shape must fit.

    Prefixes that all names share, such as `module.`, are removed if the rest fits. A wrapped network (torchvision,
    external) also takes its own plain names. Return remarks for the user: the entry and the prefix.
    Raise ValueError if several entries fit, and if none does, with the first missing, unexpected and mis-shaped
    names, by which weights of another architecture are recognised.
    """
    path, entry = file_and_entry(weights) or (Path(weights), None)
    states = read_weights(path)
    if entry is not None:
        if entry not in states:
            known = ", ".join(name for name in states if name) or "none that could be named: it is one state dict"
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
        raise ValueError(f"{path}: holds {len(names)} state dicts that fit, {', '.join(names)}; type {typed}")
    ((name, prefix, target, state),) = fitting
    target.load_state_dict(state)
    remarks = [f"starts from {name} in {path.name}"] if name and entry is None else []
    if prefix:
        remarks.append(f"starts from weights whose names all begin with {prefix} in {path.name}: that is left out")
    return tuple(remarks)


def _looks_like_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors do, with the length of a header and a JSON object."""
    with open(path, "rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and 8 + int.from_bytes(start[:8], "little") <= path.stat().st_size


def _state_dicts(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every dictionary that holds only named tensors, with the keys that lead to it."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if named and len(named) == len(content) and all(isinstance(value, Tensor) for value in named.values()):
        yield name, named
        return
    for key, value in named.items():
        yield from _state_dicts(value, f"{name}.{key}" if name else key, depth + 1)


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
    for _ in range(DEEPEST):
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
    return f"{where} does not fit {type(target).__name__}: {misfits}. Are they of another model?"


def _listed(what: str, names: list[str], limit: int = 3) -> str:
    if not names:
        return ""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{what}: {', '.join(names[:limit])}{more}"


def _refused(path: Path, error: Exception) -> str:
    """Return the message for a torch file that holds more than tensors."""
    _, _, reason = str(error).partition("WeightsUnpickler error:")
    match = re.search(r"(?:GLOBAL|class|function) ([\w.]+\.\w+)", reason)
    if name := match[1] if match else _first_foreign_type(path):
        return (
            f"refused, it holds {name} besides tensors, and loading that could run code. Save the state dict alone, "
            "torch.save(model.state_dict(), FILE), best as .safetensors"
        )
    return f"torch cannot read it as weights ({_plain(reason or error)}); name a file of weights, best .safetensors"


def _first_foreign_type(path: Path) -> str:
    """Return the first type that a pickle asks for and that is not torch's; the pickle is parsed and not run."""
    content, texts = path.read_bytes(), list[str]()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        top, memo = None, list[Any]()  # a name is made of two strings on the stack
        for operation, argument, _ in pickletools.genops(content):
            if operation.name in ("GLOBAL", "STACK_GLOBAL"):
                name = ".".join(texts[-2:]) if argument is None else str(argument).replace(" ", ".")
                if not name.startswith(("torch.", "collections.")):
                    return name
            if operation.name == "MEMOIZE":
                memo.append(top)
            top = memo[int(argument or 0)] if operation.name in ("BINGET", "LONG_BINGET") and memo else argument
            texts += [top] if isinstance(top, str) else []
    except (ValueError, StopIteration, zipfile.BadZipFile):  # no pickle
        pass
    return ""


def _plain(message: object) -> str:
    """Return the first line of torch's message, without the codes that make it bold."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(message)).strip().split("\n")[0]
