"""A command as it was typed: passed to everything that runs for it, including other processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4


@dataclass(frozen=True)
class Invocation:
    """One command. It can be pickled, because launchers pass it to cells in other processes."""

    verb: str
    command: str = "kdrun"  # as it could be typed again
    notes: Sequence[str] = ()  # about the experiment, for tables and pages
    token: str = field(default_factory=lambda: uuid4().hex)  # unique per command, even if the same words are typed
