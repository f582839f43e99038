"""Device and precision: what the user asked for, checked against what this machine has."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import psutil
import torch


def resolve_device(asked: str) -> torch.device:
    """Give the device; auto is the first GPU where there is one. Raises ValueError for one that is not here."""
    if asked == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(asked)
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise ValueError(f"device={asked}: this machine has {found} CUDA devices; type device=cpu or device=auto")
        return torch.device("cuda", device.index or 0)
    return device


def resolve_precision(asked: str, device: torch.device) -> str:
    """Give fp32 or bf16; auto is bf16 where the hardware computes it natively."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return "bf16" if onednn and torch.cpu._is_avx512_bf16_supported() else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Give the context of a forward pass; fp32 has none."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def free_memory(device: torch.device) -> int:
    """Give the bytes that could still be used on a device; on a CPU what the system or a container's limit leaves."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")  # a container's limit, where there is one
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return free


def describe(device: torch.device) -> str:
    """Name the device for people: the GPU's name, or the CPU's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()})"


def save_rng(device: torch.device) -> list[torch.Tensor]:
    """Give the state of the default generators that a forward pass on `device` draws from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def restore_rng(states: list[torch.Tensor], device: torch.device) -> None:
    """Set the default generators to what `save_rng` gave."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
