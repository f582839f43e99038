"""Trackers: send the metrics of each epoch to a tool for experiment tracking.

A tracker is a file in this folder with a function `start`, named after the package that it needs and the extra that
installs it, or a user's own class, given as package.module:Class. It is imported after the first epoch, so that it
does not delay the start of a training. It receives an epoch once that epoch is saved, and its exceptions never stop a
training.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kdrun import checks, own
from kdrun.spec import Spec, leaves

log = logging.getLogger(__name__)
MAX_ERROR = 300  # characters of an error that are shown
METHODS = ("begin", "epoch", "end", "close")
OWN = own.Kind(
    "tracker",
    "trackers",
    f"a class with the methods {', '.join(METHODS)} (docs/tracking.md)",
    lambda value: inspect.isclass(value) and all(callable(getattr(value, name, None)) for name in METHODS),
)


@dataclass(frozen=True)
class Command:
    """The command that trains."""

    verb: str
    typed: str  # the command line
    folder: Path  # of the run; for what a sweep trains before its cells, of the sweep
    outputs: Path


@dataclass(frozen=True)
class Training:
    """One training, as trackers see it."""

    label: str
    role: str
    dataset: str
    model: str
    spec: Spec
    formula: str
    artifact: str  # its folder in the store
    began: float  # seconds since the epoch
    resumed: bool = False  # from a checkpoint
    notes: Mapping[str, Any] = field(default_factory=dict)  # the loss, and T and alpha if the loss reads them

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its spec."""
        return self.spec.fingerprint

    def settings(self) -> dict[str, bool | int | float | str]:
        """Return all settings that determine the training's result, by dotted name; lists as they are typed."""
        named = {"role": self.role, "dataset": self.dataset, "model": self.model, **self.notes}
        flat = named | dict(leaves(json.loads(self.spec.json())))
        return {k: v if isinstance(v, bool | int | float) else checks.as_typed(v) for k, v in flat.items()}


class Tracker(Protocol):
    """Writes the trainings of one command in a tool's own format; several trainings may run in lockstep."""

    view_command: str  # the command that shows them

    def begin(self, training: Training) -> None:
        """Open a training's log. All of its epochs follow, from the first."""

    def epoch(self, training: Training, row: Mapping[str, float]) -> None:
        """Write an epoch's row of history.csv; a resumed training sends its earlier epochs again."""

    def end(self, training: Training, result: Mapping[str, Any]) -> None:
        """Write the result.json of a training that is done or has diverged."""

    def close(self) -> None:
        """Close the trainings that are still open: they were interrupted. Others may begin afterwards."""


class Tracking:
    """Forward to a command's tracker. The first error is logged and ends the tracking; none is raised."""

    def __init__(self, name: str = "none", start: Callable[[], Tracker] | None = None) -> None:
        self.name, self._start = name, start
        self._off = start is None
        self._tracker: Tracker | None = None
        self._sent: dict[str, int] = {}  # number of epochs sent, by fingerprint

    def epochs(self, training: Training, history: Sequence[Mapping[str, float]]) -> None:
        """Send the epochs of a training that were not sent yet."""
        with self._guarded():
            self._send(training, history)

    def end(self, training: Training, history: Sequence[Mapping[str, float]], result: Mapping[str, Any]) -> None:
        """Send the epochs of a training that were not sent yet, and its result."""
        with self._guarded():
            if (tracker := self._send(training, history)) is not None:
                tracker.end(training, result)
                del self._sent[training.fingerprint]

    def close(self) -> None:
        """Close the tracker: trainings that have not ended were interrupted."""
        tracker, self._sent = self._tracker, {}
        if self._off:  # after an error the tracker may clean up once, silently
            self._tracker = None
        if tracker is not None:
            with self._guarded():
                tracker.close()

    def _send(self, training: Training, history: Sequence[Mapping[str, float]]) -> Tracker | None:
        if self._off or self._start is None:
            return None
        if self._tracker is None:
            self._tracker = self._start()
            look = getattr(self._tracker, "view_command", "")  # a user's own tracker may lack it
            log.info("tracker=%s%s", self.name, f"; view with: {look}" if look else "")
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
                warnings.simplefilter("ignore")  # deprecations among a tool's packages
                yield
        except Exception as error:
            if not self._off:
                what = f"{type(error).__name__}: {str(error)[:MAX_ERROR]}"
                log.warning("tracker=%s failed (%s): tracking stops, training continues", self.name, what)
                log.debug("where the tracker failed", exc_info=True)
            self._off = True


def tracking(name: str, command: Command) -> Tracking:
    """Return the tracking for tracker=NAME; auto is tensorboard if it is installed, else none."""
    if name == "auto":
        name = "tensorboard" if checks.installed("tensorboard") else "none"
    if name == "none":
        return Tracking()
    if own.is_own(name):
        return Tracking(name, lambda: find(name)(command))
    return Tracking(name, lambda: importlib.import_module(f"kdrun.tracking.{name}").start(command))


def find(name: str) -> Callable[[Command], Tracker]:
    """Return the user's class that tracker=package.module:Class names. Raise ValueError if there is none."""
    cls: Callable[[Command], Tracker] = own.resolve(name, OWN, "tracker")
    return cls


def metrics(row: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of an epoch's row, without those that are NaN because the set has no labels."""
    return {key: float(value) for key, value in row.items() if key != "epoch" and not math.isnan(value)}


def final_metrics(result: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield epochs with the metrics measured at the end: `selected.test_accuracy`, `last.test_accuracy`, …"""
    for name in ("selected", "last", "best_test"):
        if point := result[name]:
            parts = {part: point.get(part) or {} for part in ("train", "val", "test")}
            yield (
                int(point["epoch"]),
                {f"{name}.{part}_{key}": float(v) for part, own in parts.items() for key, v in own.items()},
            )
