"""How robust the networks of a run are on corrupted images and under attacks, and the student against the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdrun.config import Robustness
from kdrun.measuring.cache import all_cached, cached
from kdrun.measuring.conditions import ATTACKS, CLEAN, levels, missing, recorded, settings
from kdrun.records import RunJson
from kdrun.results import statistics
from kdrun.results.evidence import UNTESTED
from kdrun.results.networks import Row, StoredNetwork, lost, names_of, read_rows
from kdrun.results.robustness.verdict import judgement
from kdrun.results.statistics import Paired, Summary, as_json
from kdrun.results.tables import Sentences, per_cent
from kdrun.spec import canonical

Accuracy = Mapping[str, Mapping[str, float]]  # family -> strength -> accuracy in [0, 1]
CORRUPTED, ATTACKED = "corrupted, mean", "attacked, mean"
LOST = {CORRUPTED: "lost to corruptions", ATTACKED: "lost to attacks"}


@dataclass(frozen=True)
class Pair:
    """One student with its baseline; `name` distinguishes several students."""

    name: str
    baseline: Row | None
    student: Row


class RobustnessComparison:
    """Rows, pairs and the verdict of one run, whose run.json is `record`, from the measurements beside its artifacts.

    Raise ValueError if an artifact's result cannot be read.
    """

    def __init__(self, folders: Sequence[Path], record: RunJson, how: Robustness) -> None:
        self.how, self.report = how, (record.get("config") or {}).get("report")
        self.rows = read_rows(folders, record)
        self.names = names_of(self.rows)
        self.settings = settings(how, data_of(self.rows))
        self.measurements: dict[Path, dict[str, Any]] = {}
        for network in (m for row in self.rows for m in row.finished):
            read = cached(network.folder, "robustness", self.settings)
            if read is not None and not missing(read["accuracy"], how):
                self.measurements[network.folder] = read
        baselines = {row.lane: row for row in reversed(self.rows) if row.role == "baseline"}
        self.pairs = [Pair(row.lane, baselines.get(row.lane), row) for row in self.rows if row.role == "student"]

    def measured(self, row: Row) -> list[StoredNetwork]:
        """Return a row's networks that were measured."""
        return [m for m in row.finished if m.folder in self.measurements]

    def accuracy(self, network: StoredNetwork) -> Accuracy:
        """Return a network's accuracies by family and strength."""
        accuracy: Accuracy = self.measurements[network.folder]["accuracy"]
        return accuracy

    def summary(self, row: Row, line: str) -> Summary | None:
        """Summarise one line of the table over a row's seeds."""
        return statistics.summary([lines(self.accuracy(m), self.how)[line] for m in self.measured(row)])

    def difference(self, pair: Pair, line: str) -> Paired | None:
        """Return one line of the student minus that of the baseline, paired by seed."""
        if pair.baseline is None:
            return None
        base = {m.seed: lines(self.accuracy(m), self.how)[line] for m in self.measured(pair.baseline)}
        own = {m.seed: lines(self.accuracy(m), self.how)[line] for m in self.measured(pair.student)}
        return statistics.pair_by_seed(own, base)

    def verdict(self) -> Sentences:
        """Return in words whether each student is more robust than its baseline to corruptions and to attacks."""
        sentences = [sentence for pair in self.pairs for sentence in self._sentences(pair)]
        return Sentences(sentences or [s for row in self.rows for s in self._alone(row)])

    def _sentences(self, pair: Pair) -> Iterator[str]:
        about = f"{pair.name}: " if pair.name else ""
        if pair.baseline is None:
            yield f"{about}{UNTESTED}: without labels there is no baseline to compare with."
            return
        if pair.baseline.fingerprints == pair.student.fingerprints:
            yield f"{about}{UNTESTED}: the {pair.student.label} is the baseline, since the teacher's weight is 0."
            return
        lost_seeds = lost([*pair.baseline.networks, *pair.student.networks])
        for what, line, clean in self._judged():
            changed, before, drop = (self.difference(pair, one) for one in (line, clean, LOST[line]))
            yield about + " ".join(judgement(what, changed, before, drop, lost_seeds))

    def _judged(self) -> Iterator[tuple[str, str, str]]:
        """Yield what is judged: its name, its line, and the line of the same images unchanged."""
        if self.how.corruptions:
            yield "corruptions", CORRUPTED, CLEAN
        if self.how.fgsm or self.how.pgd:
            yield "attacks", ATTACKED, clean_line(self.how)

    def _alone(self, row: Row) -> Iterator[str]:
        for what, line, clean in self._judged():
            mean, before = self.summary(row, line), self.summary(row, clean)
            if mean is not None:
                changed = f"mean accuracy {per_cent(mean)}%"
                yield f"Under {what}, {self.names[row]}: {changed}, against {per_cent(before)}% on clean images."

    def data(self) -> dict[str, Any]:
        """Return the content of robustness.json without its table."""
        names = list(lines(next(iter(self.measurements.values()))["accuracy"], self.how))
        return {
            "kind": "robustness",
            "verdict": self.verdict(),
            "settings": self.settings,
            "rows": [
                {
                    "role": row.role,
                    "label": row.label,
                    "lane": row.lane,
                    "name": self.names[row],
                    "model": row.model,
                    "lines": {line: as_json(self.summary(row, line)) for line in names},
                    "points": [
                        {"seed": m.seed, "fingerprint": m.result["fingerprint"], "accuracy": self.accuracy(m)}
                        for m in self.measured(row)
                    ],
                }
                for row in self.rows
            ],
            "differences": [
                {"lane": pair.name, "lines": {line: as_json(self.difference(pair, line)) for line in names}}
                for pair in self.pairs
            ],
        }


def data_of(rows: Sequence[Row]) -> str | None:
    """Return the digest of a run's data set: the students', since a teacher may come from another run."""
    return rows[-1].networks[0].result.get("data") if rows else None


def measured_robustness(folders: Sequence[Path], record: RunJson) -> RobustnessComparison | None:
    """Return a run's robustness under the settings of the run itself, else under those that most networks share.

    If several are equally common, those of the newest measurement. None if nothing was measured, or only by versions
    with other numerics.
    """
    rows = read_rows(folders, record)
    known: dict[str, tuple[int, str, Robustness]] = {}
    for measurement in (one for row in rows for m in row.finished for one in all_cached(m.folder, "robustness")):
        how = recorded(measurement["settings"])
        if how is None or measurement["settings"].get("data") != data_of(rows) or missing(measurement["accuracy"], how):
            continue
        name = canonical(vars(how))
        count, newest, _ = known.get(name, (0, "", how))
        known[name] = (count + 1, max(newest, str(measurement["created"])), how)
    own = (record.get("config") or {}).get("robustness")
    best = known.get(canonical(own)) or max(known.values(), key=lambda one: one[:2], default=None)
    return None if best is None else RobustnessComparison(folders, record, best[2])


def clean_line(how: Robustness) -> str:
    """Return the name of the line of clean accuracy on the attacked images: CLEAN if all images were attacked too."""
    same = how.corruptions and how.images == how.attack_images
    return CLEAN if same else "clean, attacked images"


def lines(accuracy: Accuracy, how: Robustness) -> dict[str, float]:
    """Return the table's lines for one network: means over severities, and their distance from clean accuracy."""
    numbers: dict[str, float] = {}
    if how.corruptions:
        single = {
            name.replace("_", " "): float(np.mean([accuracy[name][level] for level in levels(name, how)]))
            for name in how.corruptions
        }
        numbers = {CLEAN: accuracy[CLEAN]["0"], CORRUPTED: float(np.mean(list(single.values())))}
        numbers |= {LOST[CORRUPTED]: numbers[CLEAN] - numbers[CORRUPTED], **single}
    attacks = [name for name in ATTACKS if getattr(how, name)]
    if attacks:
        each = {f"{name.upper()} ε={at}": accuracy[name][at] for name in attacks for at in levels(name, how)[1:]}
        numbers[clean_line(how)] = before = accuracy[attacks[0]]["0"]
        numbers[ATTACKED] = float(np.mean(list(each.values())))
        numbers |= {LOST[ATTACKED]: before - numbers[ATTACKED], **each}
    return numbers
