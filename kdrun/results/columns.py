"""Additional columns of a table: those that `columns=[…]` and `kdrun report --columns …` name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from kdrun.records import RowJson
from kdrun.results.comparison.measures import BY_KEY
from kdrun.results.networks import StoredNetwork, open_networks
from kdrun.results.runs import Run, number
from kdrun.results.statistics import Summary
from kdrun.results.tables import Columns

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
COST = "cost"  # several columns: see results/cost_table.py
Lookup = Callable[[str], Summary | None]
Networks = list[StoredNetwork]
RowNetworks = tuple[list[Networks], list[Networks]]  # the networks of each row, and those of its own teacher


class RecordedRow(NamedTuple):
    """What a table's row is made from: its run, its row in comparison.json, and its own teacher's row there."""

    run: Run
    row: RowJson | None
    teacher: RowJson | None


def beside(words: Sequence[str], rows: Sequence[Lookup], networks: Callable[[], RowNetworks]) -> Columns:
    """Return the columns that `words` name.

    Each row is a function from a measure's key to its value; `networks` is called only if `words` include the cost.
    """
    # a run of an older version may name a column that no longer exists
    measured = [BY_KEY[MEASURED[word]] for word in words if word in MEASURED]
    headings = [measure.heading for measure in measured]
    cells = [[measure.written(lookup(measure.key)) for measure in measured] for lookup in rows]
    if COST not in words:
        return Columns(headings, cells, [])
    from kdrun.results.cost_table import cost_columns

    cost = cost_columns(*networks())
    if not any(heading.startswith("ms") for heading in cost.headings):
        cost.notes.append("latency and memory are not measured yet: kdrun evaluate RUN cost=true")
    return Columns([*headings, *cost.headings], [a + b for a, b in zip(cells, cost.cells, strict=True)], cost.notes)


def of_records(words: Sequence[str], rows: Sequence[RecordedRow], outputs: Path) -> Columns:
    """Return the columns for rows of comparison.json; older files lack some measures.

    The networks come from the store under `outputs`, or from the one beside a run.
    """

    def networks() -> RowNetworks:
        return ([_networks(known.run, known.row, outputs) for known in rows],
                [_networks(known.run, known.teacher, outputs) for known in rows])  # fmt: skip

    return beside(words, [lambda key, row=known.row: number(row, key) for known in rows], networks)  # type: ignore[misc]


def _networks(run: Run, row: RowJson | None, outputs: Path) -> Networks:
    """Return the networks of a row that are still in the store."""
    points = (row or {}).get("points", ())
    folders = [run.store(outputs) / str(point["folder"]) for point in points if point.get("folder")]
    return open_networks(folders).networks
