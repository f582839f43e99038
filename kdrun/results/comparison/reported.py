"""What papers and their authors' logs report for a pair of networks, shown if a run keeps to their settings.

An experiment lists these numbers (`reported:`) by source: test top-1 in per cent of the teacher, of the baseline and
of the student of each loss, and whether it is that of the last epoch or of the best epoch on test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdrun.config import Root
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.networks import Row
from kdrun.results.tables import Exact

# keys that make a run differ from the reported ones; those in KEPT, such as the choice of one loss, do not
DECIDES = ("recipe", "teacher", "student", "teachers", "assistants", "students", "dataset", "transfer", "loss", "T",
           "alpha", "budget", "combine", "generations", "published", "reported")  # fmt: skip
KEPT = ("loss", "teacher.seed", "teacher.from", "teacher.trust", "dataset.root", "dataset.max_resident_gb")
USUAL = {"T": str(Root.T), "alpha": str(Root.alpha), "recipe.protocol": "paper", "budget": "full"}


@dataclass(frozen=True)
class Reported:
    """One reported number: test top-1 in per cent at the "last" or "best" epoch; None if the source does not say."""

    top1: float
    epoch: str | None
    source: str

    @property
    def of(self) -> str:
        """The epoch in words."""
        return {"last": "last epoch", "best": "best epoch on test"}.get(self.epoch or "", "epoch not stated")


def reported(comparison: Comparison) -> dict[Row, list[Reported]]:
    """Return what is reported for each row, the last epoch first; nothing if a setting was changed."""
    return {} if changed(comparison) else _listed(comparison)


def changed(comparison: Comparison) -> list[str]:
    """Return the typed words that change the settings of the reported numbers.

    A teacher from a run or a file counts as the published one if its accuracy is the reported one to two digits.
    """
    config = comparison.config
    words = [word for word in map(str, comparison.record.get("overrides") or ()) if _changes(word)]
    if (protocol := (config.get("recipe") or {}).get("protocol")) != "paper" and not words:
        words.append(f"recipe.protocol={protocol}")
    source = (config.get("teacher") or {}).get("from")
    if source is not None and not _is_published(comparison):
        words.append(f"teacher.from={source}, whose accuracy is not the reported one")
    return words


def _changes(word: str) -> bool:
    key, _, value = word.lstrip("+~").partition("=")
    if key.split("@")[0].split(".")[0] not in DECIDES or key in KEPT:
        return False
    if (usual := USUAL.get(key)) is None:
        return True
    try:
        return float(value) != float(usual)
    except ValueError:
        return value != usual


def _is_published(comparison: Comparison) -> bool:
    row = comparison.towards
    test = None if row is None else row.summary("test")
    known = _listed(comparison).get(row, []) if row is not None else []
    return test is not None and any(abs(100 * test.mean - one.top1) < 0.0051 for one in known)


def _listed(comparison: Comparison) -> dict[Row, list[Reported]]:
    """Return what the experiment lists for each row that is alone in its role; for a student, only of a single loss."""
    blocks: Sequence[Mapping[str, Any]] = comparison.config.get("reported") or ()
    chosen = (comparison.record.get("choices") or {}).get("loss")
    losses = [chosen] if isinstance(chosen, str) else list(chosen or ())
    keys = {"teacher": "teacher", "baseline": "baseline"} | ({"student": losses[0]} if len(losses) == 1 else {})
    listed: dict[Row, list[Reported]] = {}
    for row in comparison.rows:
        known = [
            Reported(float(block["top1"][key]), block.get("epoch"), str(block["source"]))
            for block in blocks
            if (key := keys.get(row.role)) in block["top1"]
        ]
        if known and sum(other.role == row.role for other in comparison.rows) == 1:
            listed[row] = sorted(known, key=lambda one: one.epoch != "last")
    return listed


def cell(known: Sequence[Reported]) -> str:
    """Return the cell of a row's first reported number: that of the last epoch, if one is reported."""
    if not known:
        return "–"
    return Exact(f"{known[0].top1:.2f}" + (f" {known[0].epoch}" if known[0].epoch else ""), {"": known[0].top1})


def notes(comparison: Comparison) -> Iterator[str]:
    """Yield a sentence for each source, or one on why the reported numbers are not shown."""
    if not (listed := _listed(comparison)):
        return
    if words := changed(comparison):
        yield f"published results of this pair are not comparable, so they are left out: {', '.join(words)}"
        return
    by_source: dict[tuple[str, str], list[str]] = {}
    for row, known in listed.items():
        for one in known:
            by_source.setdefault((one.source, one.of), []).append(f"{comparison.names[row]} {one.top1:.2f}")
    for (source, of), numbers in by_source.items():
        yield f"reported %, {of}, by {source}: {', '.join(numbers)}"
