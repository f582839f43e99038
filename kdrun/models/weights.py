"""Reading weight files: safetensors, or torch files of nothing but tensors."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def is_file_name(weights: str) -> bool:
    """Whether `weights` names a file, rather than a published set such as DEFAULT."""
    return Path(weights).suffix in SUFFIXES


def file_digest(path: str | Path) -> str:
    """Sha256 of a file's content; ValueError when there is none."""
    if not Path(path).is_file():
        raise ValueError(f"weights: there is no file {Path(path).absolute()}")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """State dict of a weight file, on the CPU.

    A torch file may wrap its tensors in "state_dict" or "model", as training scripts write them. It is
    read with weights_only=True and never otherwise: a file that asks for code to run raises ValueError.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights: there is no file {path.absolute()}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: not a whole safetensors file ({error})") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"{path}: refused, it holds more than tensors and loading it could run code ({reason}). "
            "Save the state dict alone, best as .safetensors"
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a whole torch file ({error})") from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: holds no state dict (names to tensors), but {type(content).__name__}")
    return dict(content)


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Fill `module` from a file; every name and shape must fit.

    Raises ValueError with the first missing, unexpected and mis-shaped names, so that weights of another
    architecture are recognised. A wrapped network (torchvision, external) also takes its own plain names.
    """
    state = read_weights(path)
    if isinstance(inner := getattr(module, "network", None), nn.Module) and not any(
        name.startswith("network.") for name in state
    ):
        module = inner
    own = module.state_dict()
    complaints = [
        _listed("missing", [name for name in own if name not in state]),
        _listed("unexpected", [name for name in state if name not in own]),
        _listed(
            "of another shape",
            [
                f"{name} {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
                for name in own
                if name in state and own[name].shape != state[name].shape
            ],
        ),
    ]
    if any(complaints):
        found = "; ".join(complaint for complaint in complaints if complaint)
        raise ValueError(f"{path} does not fit {type(module).__name__}: {found}. Are they of another model?")
    module.load_state_dict(state)


def _listed(what: str, names: list[str], limit: int = 3) -> str:
    if not names:
        return ""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{what}: {', '.join(names[:limit])}{more}"
