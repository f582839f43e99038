"""Recognise running out of memory, on a GPU and on a CPU, and the error to raise then. Does not import torch."""

from __future__ import annotations

import contextlib
import errno
import sys

from kdrun import console
from kdrun.files import RunFailed

WORDS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "ALLOC_FAILED",
    "failed to map",
)
"""Parts of the messages with which torch's allocators, cuBLAS, cuDNN and the dynamic loader report a lack of memory."""


class OutOfMemory(RunFailed):
    """A run that does not fit into memory; its row says `oom`."""


def ran_out(error: BaseException) -> bool:
    """Return whether an error means that memory ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    own = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's error for a GPU
    return own or (isinstance(error, RuntimeError | ImportError) and any(words in str(error) for words in WORDS))


def peak() -> str:
    """Return this process's peak memory so far, for a message; empty if the system does not record it."""
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return f" (peak {console.size(used)})"
    return ""
