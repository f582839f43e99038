"""Identify the process that writes a record, and tell whether it still runs: a killed one cannot record its end."""

from __future__ import annotations

import os
import platform

import psutil

from kdrun.records import ProcessJson

CLOCK_SECONDS = 60  # tolerance of a process's start time, which shifts when the machine's clock is set


def this() -> ProcessJson:
    """Return a name of this process that no later process will have."""
    return {"host": platform.node(), "pid": os.getpid(), "began": psutil.Process().create_time()}


def gone(named: ProcessJson) -> bool:
    """Return whether a process has ended; False for a process on another machine, for which it is unknown."""
    if named["host"] != platform.node():
        return False
    try:
        process = psutil.Process(named["pid"])
        another = bool(abs(process.create_time() - named["began"]) > CLOCK_SECONDS)
        return another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:  # it belongs to another user
        return False
