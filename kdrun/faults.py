"""Fault injection, so that tests can kill a real process at an exact place.

`KDRUN_FAULT=site:n:action` acts when `site` is reached for the n-th time (from 1) in this process:
`kill` sends SIGKILL to the process, `term` sends SIGTERM, `enospc` raises OSError(ENOSPC), `raise` raises
RuntimeError. Without the variable a site costs one dictionary look-up.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

_reached: Counter[str] = Counter()  # visits in this process, counted only if the variable is set


def reach(site: str) -> None:
    """Count a visit to `site`, and fail there if KDRUN_FAULT asks for it."""
    fault = os.environ.get("KDRUN_FAULT")
    if fault is None:
        return
    name, number, action = fault.split(":")
    if name != site:
        return
    _reached[site] += 1
    if _reached[site] != int(number):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    else:
        raise RuntimeError(f"fault injected at {site}, visit {number}")
