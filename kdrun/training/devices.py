"""Device and precision: what the user asked for, checked against what this machine has."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import psutil
import torch

from kdrun import torchrun

AMPERE = (8, 0)  # the compute capability of the first GPUs with TF32


def resolve_device(asked: str) -> torch.device:
    """Return the device; auto is the first GPU where there is one. Raises ValueError for one that is not here.

    Of several processes that torchrun started on a machine each has the GPU of its number.
    """
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(asked)
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise ValueError(f"device={asked}: this machine has {found} CUDA devices; type device=cpu or device=auto")
        if device.index is not None and torchrun.processes() > 1:
            raise ValueError(f"device={asked}: is one GPU, and torchrun started several processes; type device=cuda")
        if (count := torchrun.processes_here()) > found:
            raise ValueError(
                f"torchrun started {count} processes here, and this machine has {found} CUDA devices; type "
                f"--nproc-per-node {found}, or device=cpu"
            )
        deterministic()
        return torch.device("cuda", torchrun.rank_here() if device.index is None else device.index)
    return device


def deterministic() -> None:
    """Make a GPU compute the same from the same, so that a command repeats its numbers and resumes bit for bit.

    cuDNN's fastest gradients of convolutions add in an order that changes from run to run (seen on an H200: two
    trainings of the digits' teacher parted in the sixth epoch). Where torch has no deterministic algorithm it
    warns and goes on. Memory is not filled before it is written: that would only cost time.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def resolve_precision(asked: str, device: torch.device) -> str:
    """Return fp32, tf32 or bf16; auto is bf16 where the hardware computes it natively.

    Raises ValueError for tf32 where there is no hardware for it: it would be fp32 under another name.
    """
    if asked == "tf32":
        if device.type != "cuda":
            raise ValueError(
                f"precision=tf32: only a GPU computes it, and this is device={device.type}; "
                "type precision=fp32, or precision=bf16"
            )
        if torch.cuda.get_device_capability(device) < AMPERE:
            name = torch.cuda.get_device_name(device)
            raise ValueError(f"precision=tf32: {name} is older than TF32 (NVIDIA Ampere); type precision=fp32")
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return "bf16" if onednn and torch.cpu._is_avx512_bf16_supported() else "fp32"


def set_float32(precision: str) -> None:
    """Let a GPU multiply float32 exactly, or as TF32 (10 bits of mantissa) where that was asked for.

    torch's own default is TF32 for convolutions alone. Under bf16 it is what the losses compute in, exactly.
    """
    tf32 = precision == "tf32"
    # The old switches first, to the same: torch.export and parts of the compiler still read them, and torch
    # raises where they contradict the new ones.
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    kind = "tf32" if tf32 else "ieee"
    torch.backends.cuda.matmul.fp32_precision = kind
    torch.backends.cudnn.conv.fp32_precision = kind  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = kind  # type: ignore[attr-defined]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass; fp32 and tf32 have none."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def free_memory(device: torch.device) -> int:
    """Return the bytes that could still be used on a device; on a CPU what the system or a container's limit leaves."""
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
    """Return the state of the default generators that a forward pass on `device` draws from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def restore_rng(states: list[torch.Tensor], device: torch.device) -> None:
    """Set the default generators to what `save_rng` gave."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
