"""Device and precision: the user's choice checked against this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import psutil
import torch

from kdrun import torchrun

AMPERE = (8, 0)  # the compute capability of the first GPUs with TF32


def resolve_device(name: str) -> torch.device:
    """Return the device; auto is the first GPU if there is one. Raise ValueError if this machine does not have it.

    Under torchrun, each process gets the GPU of its local rank.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ValueError(f"device={name}: this machine has {count} CUDA devices; type device=cpu or device=auto")
        if device.index is not None and torchrun.processes() > 1:
            raise ValueError(f"device={name}: is one GPU, but torchrun started several processes; type device=cuda")
        if (processes := torchrun.processes_here()) > count:
            raise ValueError(
                f"torchrun started {processes} processes here, but this machine has {count} CUDA devices; type "
                f"--nproc-per-node {count}, or device=cpu"
            )
        deterministic()
        return torch.device("cuda", torchrun.rank_here() if device.index is None else device.index)
    return device


def deterministic() -> None:
    """Let torch use deterministic algorithms, so that a command repeats its numbers and resumes bit for bit.

    cuDNN's fastest convolution gradients sum in an order that changes from run to run (seen on an H200: two trainings
    of the digits teacher differed from the sixth epoch on). If an operation has no deterministic algorithm, torch warns
    and goes on. Filling uninitialised memory is turned off, because it would only cost time.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def resolve_precision(name: str, device: torch.device) -> str:
    """Return fp32, tf32 or bf16; auto is bf16 if the hardware computes it natively.

    Raise ValueError for tf32 without the hardware for it: it would be fp32 under another name.
    """
    if name == "tf32":
        if device.type != "cuda":
            raise ValueError(
                f"precision=tf32: only GPUs support it, and this is device={device.type}; "
                "type precision=fp32, or precision=bf16"
            )
        if torch.cuda.get_device_capability(device) < AMPERE:
            gpu = torch.cuda.get_device_name(device)
            raise ValueError(f"precision=tf32: {gpu} is older than TF32 (NVIDIA Ampere); type precision=fp32")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return "bf16" if onednn and torch.cpu._is_avx512_bf16_supported() else "fp32"


def set_float32(precision: str) -> None:
    """Let a GPU multiply float32 as TF32 (10 bits of mantissa) if precision is tf32, and in full float32 otherwise.

    torch's own default is TF32 for convolutions only. Under bf16 the losses still compute in exact float32.
    """
    tf32 = precision == "tf32"
    # The old switches come first: torch.export and parts of the compiler still read them, and torch raises if
    # they contradict the new ones.
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    kind = "tf32" if tf32 else "ieee"
    torch.backends.cuda.matmul.fp32_precision = kind
    torch.backends.cudnn.conv.fp32_precision = kind  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = kind  # type: ignore[attr-defined]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the autocast context of a forward pass; for fp32 and tf32 it does nothing."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a device; on a CPU, what the system or a container's limit leaves free."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")  # the limit of a container, if there is one
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return free


def describe(device: torch.device) -> str:
    """Return the GPU's name, or the CPU's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()})"


@contextmanager
def drawing_from(states: list[torch.Tensor], device: torch.device) -> Iterator[None]:
    """Draw random numbers from these states within this context, and write the advanced states back into the list."""
    outside = save_rng(device)
    restore_rng(states, device)
    try:
        yield
        states[:] = save_rng(device)
    finally:
        restore_rng(outside, device)


def save_rng(device: torch.device) -> list[torch.Tensor]:
    """Return the states of the default generators that a forward pass on `device` draws from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def restore_rng(states: list[torch.Tensor], device: torch.device) -> None:
    """Set the default generators to states that `save_rng` returned."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
