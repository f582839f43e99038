"""A command as it was typed: handed down to whatever runs for it, also in other processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Invocation:
    """One command; it can be pickled, so that it reaches the cells of every launcher."""

    verb: str
    command: str = "kdrun"  # as it could be typed again
    started: float = 0.0  # seconds since the epoch
    notes: Sequence[str] = ()  # of the experiment, for tables and pages
