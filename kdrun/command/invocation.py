"""A command as it was typed: handed down to whatever runs for it, also in other processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4


@dataclass(frozen=True)
class Invocation:
    """One command; it can be pickled, so that it reaches the cells of every launcher."""

    verb: str
    command: str = "kdrun"  # as it could be typed again
    notes: Sequence[str] = ()  # of the experiment, for tables and pages
    token: str = field(default_factory=lambda: uuid4().hex)  # no other command has it, also if typed alike
