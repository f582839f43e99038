"""What torchrun tells the processes that it starts, in their environment. Knows no torch."""

from __future__ import annotations

import os


def processes() -> int:
    """Count the processes that train together, on all machines; 1 without torchrun."""
    return _number("WORLD_SIZE", 1)


def processes_here() -> int:
    """Count those of this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def rank_here() -> int:
    """Return the number of this process among those of its machine, from 0: the number of its GPU."""
    return _number("LOCAL_RANK", 0)


def spoken() -> list[str]:
    """Return the words before the verb with which this command was started."""
    if processes() == 1:
        return ["kdrun"]
    machines = _number("GROUP_WORLD_SIZE", 1)
    several = ["--nnodes", str(machines)] if machines > 1 else []
    return ["torchrun", *several, "--nproc-per-node", str(processes_here()), "-m", "kdrun"]


def _number(variable: str, otherwise: int) -> int:
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # other programs set the like of WORLD_SIZE for their own ends
        return otherwise
    return int(os.environ.get(variable, otherwise))
