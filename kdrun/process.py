"""Which process writes a record, and whether it still lives: what was killed says nothing of its end itself."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

import psutil

CLOCK_SECONDS = 60  # a process's start is told by the machine's clock, which may be set meanwhile


def this() -> dict[str, Any]:
    """Name this process so that none that is started later has the same name."""
    return {"host": platform.node(), "pid": os.getpid(), "began": psutil.Process().create_time()}


def gone(named: Mapping[str, Any]) -> bool:
    """Return whether a process of this machine has ended; of another machine's that is not known."""
    if named["host"] != platform.node():
        return False
    try:
        process = psutil.Process(named["pid"])
        another = bool(abs(process.create_time() - named["began"]) > CLOCK_SECONDS)
        return another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:  # another user's
        return False
