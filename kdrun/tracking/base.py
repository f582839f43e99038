"""Trackers: what a training tells the tools in which people already look at their trainings, epoch by epoch.

A tracker is one file in this folder, named as the package that it needs and as the extra that installs it, with a
function `start`. It is imported when the first epoch has ended, so that no training starts later for its sake; it is
told of an epoch once that epoch is saved; and whatever it raises stops no training.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kdrun import checks
from kdrun.spec import Spec, leaves

log = logging.getLogger(__name__)
MAX_ERROR = 300  # characters of an error that are shown


@dataclass(frozen=True)
class Command:
    """The command that trains: which verb, what was typed, and where its results go."""

    verb: str
    typed: str
    folder: Path  # of the run; of what a sweep trains before its cells run, the sweep's
    outputs: Path


@dataclass(frozen=True)
class Training:
    """One training, as a tracker is told of it."""

    label: str
    role: str
    dataset: str
    model: str
    spec: Spec
    formula: str
    artifact: str  # the name of its folder in the store
    began: float  # seconds since the epoch
    resumed: bool = False  # whether it goes on from a checkpoint
    notes: Mapping[str, Any] = field(default_factory=dict)  # T and alpha as typed

    @property
    def fingerprint(self) -> str:
        """What tells it from every other training."""
        return self.spec.fingerprint

    def settings(self) -> dict[str, bool | int | float | str]:
        """Return by dotted names what it is and all that determines its result; lists as they are typed."""
        named = {"role": self.role, "dataset": self.dataset, "model": self.model, **self.notes}
        flat = named | dict(leaves(json.loads(self.spec.json())))
        return {k: v if isinstance(v, bool | int | float) else checks.said(v) for k, v in flat.items()}


class Tracker(Protocol):
    """Writes the trainings of one command, of which several go on side by side, into some tool's own format."""

    view_command: str  # the command that shows them

    def begin(self, training: Training) -> None:
        """Open what is written about a training. What follows are all of its epochs, from the first."""

    def epoch(self, training: Training, row: Mapping[str, float]) -> None:
        """Write an epoch's row of history.csv, with those that a training has from before it was resumed."""

    def end(self, training: Training, result: Mapping[str, Any]) -> None:
        """Write what result.json says of a training that reached its end, or that diverged."""

    def close(self) -> None:
        """Close what is still open: these trainings were interrupted. Others may begin afterwards."""


class Tracking:
    """The door to a command's tracker that lets no error out: after the first, which is logged, nothing is tracked."""

    def __init__(self, name: str = "none", start: Callable[[], Tracker] | None = None) -> None:
        self.name, self._start = name, start
        self._off = start is None
        self._tracker: Tracker | None = None
        self._sent: dict[str, int] = {}  # the epochs that each training has been told

    def epochs(self, training: Training, history: Sequence[Mapping[str, float]]) -> None:
        """Tell those epochs of a training that were not told yet."""
        with self._guarded():
            self._send(training, history)

    def end(self, training: Training, history: Sequence[Mapping[str, float]], result: Mapping[str, Any]) -> None:
        """Tell how a training ended, after those of its epochs that were not told yet."""
        with self._guarded():
            if (tracker := self._send(training, history)) is not None:
                tracker.end(training, result)
                del self._sent[training.fingerprint]

    def close(self) -> None:
        """Tell that whatever has not ended will not now."""
        tracker, self._sent = self._tracker, {}
        if self._off:  # where it failed it may tidy up, once, and nobody hears whether it can
            self._tracker = None
        if tracker is not None:
            with self._guarded():
                tracker.close()

    def _send(self, training: Training, history: Sequence[Mapping[str, float]]) -> Tracker | None:
        if self._off or self._start is None:
            return None
        if self._tracker is None:
            self._tracker = self._start()
            log.info("tracker=%s; to look: %s", self.name, self._tracker.view_command)
        if training.fingerprint not in self._sent:
            self._tracker.begin(training)
            self._sent[training.fingerprint] = 0
        for row in history[self._sent[training.fingerprint] :]:
            self._tracker.epoch(training, row)
            self._sent[training.fingerprint] += 1
        return self._tracker

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what a tool's packages have against one another is no news here
                yield
        except Exception as error:
            if not self._off:
                what = f"{type(error).__name__}: {str(error)[:MAX_ERROR]}"
                log.warning("tracker=%s failed (%s): nothing more is tracked, trainings go on", self.name, what)
                log.debug("where the tracker failed", exc_info=True)
            self._off = True


def tracking(name: str, command: Command) -> Tracking:
    """Return what tracker=NAME asks for; auto is tensorboard where it is installed, else none."""
    if name == "auto":
        name = "tensorboard" if checks.installed("tensorboard") else "none"
    if name == "none":
        return Tracking()
    return Tracking(name, lambda: importlib.import_module(f"kdrun.tracking.{name}").start(command))


def metrics(row: Mapping[str, float]) -> dict[str, float]:
    """Return what was measured in an epoch, without its number and without what could not be (NaN: no label known)."""
    return {key: float(value) for key, value in row.items() if key != "epoch" and not math.isnan(value)}


def final_metrics(result: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield what was measured at the end, each with its epoch: `selected.test_accuracy`, `last.test_accuracy`, …"""
    for name in ("selected", "last", "best_test"):
        if point := result[name]:
            parts = {part: point.get(part) or {} for part in ("train", "val", "test")}
            yield (
                int(point["epoch"]),
                {f"{name}.{part}_{key}": float(v) for part, own in parts.items() for key, v in own.items()},
            )
