"""What networks know of the classes left out of the transfer set, before and after one bias is corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdrun.evaluation.accuracy import correct
from kdrun.evaluation.missing import best_offset, shifted
from kdrun.results import statistics
from kdrun.results.comparison.lanes import Lane
from kdrun.results.networks import Row, StoredNetwork
from kdrun.results.statistics import Summary
from kdrun.results.tables import per_cent


@dataclass(frozen=True)
class MissingAccuracy:
    """One network's accuracy on the test images of the missing classes and on all, without and with its offset."""

    seed: int
    offset: float
    missing: float
    missing_with: float
    everything: float
    everything_with: float


class Omitted:
    """The classes that a run left out of the transfer set, and what each of its rows knows of them.

    Nothing is measured if no class was left out, or if validation has no image of them.
    """

    def __init__(self, rows: Sequence[Row], config: Mapping[str, Any]) -> None:
        typed = (config.get("transfer") or {}).get("omit_classes") or []
        first = next((m for row in rows for m in row.finished if "classes" in m.result), None)
        names = [] if first is None else [str(name) for name in first.result["classes"]]
        self.classes = sorted({c if isinstance(c, int) else names.index(str(c)) for c in typed}) if names else []
        self.named = _and([names[c] for c in self.classes]) if self.classes else ""
        self.measured = {row: [self._measured(m) for m in row.finished if self._measurable(m)] for row in rows}

    def _measurable(self, network: StoredNetwork) -> bool:
        return bool(self.classes) and network.keeps("val") and bool(np.isin(network.labels("val"), self.classes).any())

    def _measured(self, network: StoredNetwork) -> MissingAccuracy:
        offset = best_offset(network.logits("val"), network.labels("val"), self.classes)
        labels = network.labels()
        before, after = (
            correct(z, labels) for z in (network.logits(), shifted(network.logits(), self.classes, offset))
        )
        own = np.isin(labels, self.classes)
        numbers = (float(part.mean()) for part in (before[own], after[own], before, after))
        return MissingAccuracy(network.seed, offset, *numbers)

    def summary(self, row: Row, key: str) -> Summary | None:
        """Summarise one number of a row over its seeds."""
        return statistics.summary([getattr(point, key) for point in self.measured[row]])

    def sentence(self, lane: Lane) -> str | None:
        """Return in words how often student and baseline are right on classes that they never saw, if measured."""
        if lane.student is None or not self.measured[lane.student]:
            return None
        about = f"{lane.name}: " if lane.name else ""
        shares = [self._share(lane.student, key) for key in ("missing_with", "missing")]
        sentence = (
            f"{about}Never shown {self.named}, the {lane.student.label} gets {shares[0]}% of these test images right "
        )
        sentence += f"with one offset chosen on validation, {shares[1]}% without it"
        if lane.baseline is None or not self.measured[lane.baseline]:
            return f"{sentence}."
        shares = [self._share(lane.baseline, key) for key in ("missing_with", "missing")]
        return f"{sentence}; the baseline {shares[0]}% and {shares[1]}%."

    def _share(self, row: Row, key: str) -> str:
        return per_cent(self.summary(row, key))


def _and(names: Sequence[str]) -> str:
    *some, last = names
    return f"class{'es' if some else ''} {', '.join(some)}{' and ' if some else ''}{last}"
