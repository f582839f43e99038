"""The ensembles that a comparison computes from stored logits, without any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation.accuracy import accuracy, nll
from kdrun.evaluation.ensemble import mixture
from kdrun.records import PointJson, ResultJson
from kdrun.results.networks import Row, StoredNetwork, same_images


@dataclass(frozen=True)
class Ensemble(StoredNetwork):
    """Several networks whose probabilities are averaged at T=1, each network at its own selected epoch."""

    parts: Sequence[StoredNetwork]
    weights: Sequence[float]

    @classmethod
    def of(cls, parts: Sequence[StoredNetwork], weights: Sequence[float], result: ResultJson) -> Ensemble:
        """Return the ensemble of `parts`, measured on validation and test data where all have the same images."""
        point: Any = {"epoch": 0, "train": None, "val": None, "test": None}
        made = cls(Path(), {}, parts, weights)
        for part in ("val", "test"):
            if all(m.keeps(part) for m in parts) and same_images(parts, part):
                logits, labels = made.logits(part), made.labels(part)
                point[part] = {"accuracy": accuracy(logits, labels), "nll": nll(logits, labels)}
        return cls(Path(), {**result, "selected": point}, parts, weights)

    @property
    def fingerprints(self) -> frozenset[str]:
        """The fingerprints of all its parts."""
        return frozenset().union(*(m.fingerprints for m in self.parts))

    def logits(self, part: str = "test") -> NDArray[np.floating]:
        """Return the log-probabilities on "val" or "test" data, (N, C)."""
        return mixture([m.logits(part) for m in self.parts], self.weights)

    def labels(self, part: str = "test") -> NDArray[np.integer]:
        return self.parts[0].labels(part)

    def keeps(self, part: str) -> bool:
        """Return whether the logits of all its parts were kept."""
        return all(m.keeps(part) for m in self.parts)

    def data(self) -> PointJson:
        keys = ("fingerprint", "seed", "status", "reason", "parameters", "bytes", "selected", "last")
        return cast(PointJson, {key: self.result.get(key) for key in keys} | {"weights": list(self.weights)})


def teachers_together(rows: Sequence[Row], weights: Sequence[float] = ()) -> Row | None:
    """Return the ensemble of several teachers, by default with equal weights; None if their test images differ.

    Teachers with several seeds are combined seed by seed, in order. Raise ValueError if the number of weights is not
    that of the teachers.
    """
    if weights and len(weights) != len(rows):
        raise ValueError(f"{len(weights)} weights were given for {len(rows)} teachers")
    groups = list(zip(*(row.networks for row in rows), strict=False))
    if not all(same_images([m for m in group if m.finished]) for group in groups if any(m.finished for m in group)):
        return None
    return _row(rows, groups, weights or [1.0] * len(rows))


def generations_together(rows: Sequence[Row]) -> Row:
    """Return the ensemble of all generations with equal weights, for each seed of the first generation."""
    groups = [[m for row in rows for m in row.networks if m.seed == first.seed] for first in rows[0].networks]
    return _row(rows, groups, [1.0] * len(rows))


def _row(rows: Sequence[Row], groups: Sequence[Sequence[StoredNetwork]], weights: Sequence[float]) -> Row:
    model = f"{len(rows)} {rows[0].role}s"
    networks = [_together(group, weights, model) for group in groups]
    return Row("ensemble", model, networks, "ensemble", rows[0].lane, of=rows[0].role)


def _together(parts: Sequence[StoredNetwork], weights: Sequence[float], model: str) -> Ensemble:
    """Return the ensemble of the networks of one seed; it is unfinished if one of them is."""
    shares = [str(m.result["fingerprint"]) for m in parts]
    if len(set(weights)) > 1:
        shares = [f"{weight:g}·{name}" for weight, name in zip(weights, shares, strict=False)]
    result: ResultJson = {
        "fingerprint": "+".join(shares),
        "role": "ensemble",
        "status": "done",
        "reason": None,
        "seed": parts[0].seed,
        "dataset": parts[0].result["dataset"],
        "data": parts[0].result.get("data"),
        "model": model,
        "parameters": sum(m.result["parameters"] for m in parts),
        "bytes": sum(m.result["bytes"] for m in parts),
        "selected": None,
        "last": None,
        "seconds": 0.0,
        "teachers": [],
    }
    unfinished = [m for m in parts if not m.finished]
    if unfinished or len(parts) < len(weights):
        status = unfinished[0].result["status"] if unfinished else "unfinished"
        reason = f"one of its {len(weights)} networks is missing"
        return Ensemble(Path(), {**result, "status": status, "reason": reason}, parts, weights)
    return Ensemble.of(parts, weights, result)
