"""The environment variables that torchrun sets for its processes. Does not import torch."""

from __future__ import annotations

import os


def processes() -> int:
    """Return the number of processes that train together, on all machines; 1 without torchrun."""
    return _number("WORLD_SIZE", 1)


def processes_here() -> int:
    """Return the number of these processes on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def rank_here() -> int:
    """Return the rank of this process on its machine, from 0, which is the index of its GPU."""
    return _number("LOCAL_RANK", 0)


def spoken() -> list[str]:
    """Return the words with which this command was started, up to the verb: kdrun, or torchrun … -m kdrun."""
    if processes() == 1:
        return ["kdrun"]
    machines = _number("GROUP_WORLD_SIZE", 1)
    nodes = ["--nnodes", str(machines)] if machines > 1 else []
    return ["torchrun", *nodes, "--nproc-per-node", str(processes_here()), "-m", "kdrun"]


def _number(variable: str, default: int) -> int:
    """Return the value of one of torchrun's variables, or the default without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # other programs set variables such as WORLD_SIZE as well
        return default
    return int(os.environ.get(variable, default))
