"""Columns on request: what `columns=[…]` and `kdrun report --columns …` add to a table, by the words that are typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdrun.results.measures import BY_KEY, written
from kdrun.results.members import Member
from kdrun.results.runs import Run, number
from kdrun.results.statistics import Summary

MEASURED = {  # the word -> the measure
    "nll": "test_nll",
    "ece": "ece",
    "balanced": "balanced_accuracy",
    "f1": "macro_f1",
    "top5": "top5_accuracy",
    "kl": "kl_to_teacher",
    "to90": "epochs_to_90",
    "to95": "epochs_to_95",
    "to99": "epochs_to_99",
    "swing": "unsteadiness",
}
COST = "cost"  # several columns, which results/cost.py chooses
Look = Callable[[str], Summary | None]


class Added(NamedTuple):
    """Columns beside a table: their headings, the cells of each row, and the notes that explain them."""

    headings: list[str]
    cells: list[list[str]]
    notes: list[str]


def beside(
    words: Sequence[str], rows: Sequence[Look], networks: Callable[[], tuple[list[list[Member]], list[Member]]]
) -> Added:
    """Give the columns that words ask for.

    Each row is a way to look a measure up; `networks` gives the networks of each row and those of the teacher, and is
    asked only where their cost is wanted.
    """
    measured = [BY_KEY[MEASURED[word]] for word in words if word != COST]
    headings = [measure.heading for measure in measured]
    cells = [[written(measure, look(measure.key)) for measure in measured] for look in rows]
    if COST not in words:
        return Added(headings, cells, [])
    from kdrun.results.cost import cost_columns

    groups, teacher = networks()
    cost = cost_columns(groups, teacher)
    notes = cost.notes
    if not any(heading.startswith("ms") for heading in cost.headers):
        notes = [*notes, "latency and memory are not measured yet: kdrun evaluate RUN cost=true"]
    return Added([*headings, *cost.headers], [a + b for a, b in zip(cells, cost.cells, strict=True)], notes)


def of_records(words: Sequence[str], rows: Sequence[tuple[Run, Mapping[str, Any] | None]], outputs: Path) -> Added:
    """Give the columns for rows as comparison.json has them, each with its run; older ones lack some measures."""

    def networks() -> tuple[list[list[Member]], list[Member]]:
        teachers = [run.teacher() for run, _ in rows]
        found = next(((run, t) for (run, _), t in zip(rows, teachers, strict=True) if t is not None), None)
        return [_members(run, row, outputs) for run, row in rows], [] if found is None else _members(*found, outputs)

    return beside(words, [lambda key, row=row: number(row, key) for _, row in rows], networks)  # type: ignore[misc]


def _members(run: Run, row: Mapping[str, Any] | None, outputs: Path) -> list[Member]:
    """Give the networks behind a row, as far as they are still in the store."""
    folders = [
        run.store(outputs) / str(point["folder"]) for point in (row or {}).get("points", ()) if point.get("folder")
    ]
    return [Member.read(folder) for folder in folders if (folder / "result.json").is_file()]
