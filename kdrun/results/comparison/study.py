"""The measures beyond accuracy, computed from a network's stored logits and its training curve."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation import calibration, classes
from kdrun.evaluation.calibration import Reliability
from kdrun.evaluation.curves import epochs_to, unsteadiness
from kdrun.results import statistics
from kdrun.results.networks import Row, StoredNetwork
from kdrun.results.statistics import Summary

SHARES = (90, 95, 99)  # per cent of the final validation accuracy; the epochs to each are counted


@dataclass(frozen=True)
class Study:
    """One network on the test data: its confusion matrix, its calibration, and single measures by key."""

    seed: int
    confusion: NDArray[np.int64]
    reliability: Reliability
    numbers: dict[str, float]


@dataclass(frozen=True)
class Studied:
    """The networks of one row that were tested."""

    row: Row
    parts: Sequence[Study]

    @classmethod
    def of(cls, row: Row) -> Studied:
        """Study every network of a row with test results. Raise ValueError if stored logits cannot be read."""
        return cls(row, [_study(network) for network in row.finished if network.tested])

    def points(self, key: str) -> dict[int, float]:
        """Return one measure of every network by its seed."""
        return {part.seed: part.numbers[key] for part in self.parts}

    def summary(self, key: str) -> Summary | None:
        """Summarise one measure over the seeds."""
        return statistics.summary(list(self.points(key).values()))

    def confusion(self) -> NDArray[np.float64]:
        """Return the mean confusion matrix over the seeds, (C, C)."""
        mean: NDArray[np.float64] = np.mean([part.confusion for part in self.parts], axis=0)
        return mean

    def per_class(self) -> NDArray[np.float64]:
        """Return the accuracy of every class by seed, (n, C)."""
        return np.stack([classes.per_class(part.confusion) for part in self.parts])


def _study(network: StoredNetwork) -> Study:
    logits, labels = network.logits(), network.labels()
    counts = classes.confusion(logits, labels)
    reliable = calibration.reliability(logits, labels)
    curve = [row.get("val_accuracy", math.nan) for row in history(network)]
    numbers = {
        "top5_accuracy": classes.top_k(logits, labels),
        "balanced_accuracy": classes.balanced_accuracy(counts),
        "macro_f1": classes.macro_f1(counts),
        "ece": reliable.ece,
        "unsteadiness": _known(unsteadiness(curve)),
        **{f"epochs_to_{share}": _known(epochs_to(curve, share / 100)) for share in SHARES},
    }
    return Study(network.seed, counts, reliable, numbers)


def history(network: StoredNetwork) -> list[dict[str, float]]:
    """Read an artifact's history.csv, a row per epoch; empty for an ensemble and for weights from a file."""
    if "history.csv" not in network.result.get("checksums", {}):
        return []
    with network.file("history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _known(value: float | None) -> float:
    return math.nan if value is None else float(value)
