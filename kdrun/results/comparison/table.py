"""The main table of a comparison: a row for each role and network, with its difference to the baseline."""

from __future__ import annotations

from functools import partial

import numpy as np

from kdrun import console
from kdrun.results import columns as extra
from kdrun.results.comparison import reported
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.notes import notes, sources
from kdrun.results.networks import Row
from kdrun.results.tables import Exact, Table, per_cent

REPORTED = "reported %"


def comparison_table(comparison: Comparison) -> Table:
    """Return the table: the verdict as its title, the rows, the notes, and the sources, which only the files have."""
    columns = ["role", "model", "params", "size", "train %", "val %", "test %", REPORTED, "Δ base", "gap %", "agree %",
               "n", "epoch", "time"]  # fmt: skip
    words = comparison.config.get("columns") or []
    looks = [partial(comparison.measured, row) for row in comparison.rows]
    added = extra.beside(words, looks, lambda: _networks(comparison))
    rows = [[*_cells(comparison, row), *cells] for row, cells in zip(comparison.rows, added.cells, strict=True)]
    columns += added.headings
    others = reported.reported(comparison)
    for row, known in zip(rows, comparison.rows, strict=True):
        row.insert(columns.index(REPORTED), reported.cell(others.get(known, ())))
    lines = [*notes(comparison), *reported.notes(comparison), *added.notes]
    return Table(columns, rows, comparison.verdict(), lines, sources(comparison)).without_empty(REPORTED)


def _networks(comparison: Comparison) -> extra.RowNetworks:
    """Return the networks of every row (none for an ensemble), and for every row those of the teacher."""
    groups = [[] if row.of else list(row.networks) for row in comparison.rows]
    towards = comparison.towards
    return groups, [groups[comparison.rows.index(towards)] if towards in comparison.rows else []] * len(groups)


def _cells(comparison: Comparison, row: Row) -> list[str]:
    result = (row.finished or row.networks)[0].result
    test = row.summary("test")
    first = [_role(row), row.model]
    if result["parameters"]:
        first.append(Exact(console.count(result["parameters"]), {"": result["parameters"]}))
        first.append(Exact(console.size(result["bytes"]), {"bytes": result["bytes"]}) if result["bytes"] else "–")
    else:
        first += ["–", "–"]
    if test is None:
        accuracies = [per_cent(row.summary(part)) for part in ("train", "val")]
        return [*first, *accuracies, row.lost() or "–", *["–"] * 3, row.count(), "–", "–"]
    epochs = [int(m.selected["epoch"]) for m in row.finished]
    spread = {"": min(epochs)} if min(epochs) == max(epochs) else {"from": min(epochs), "to": max(epochs)}
    seconds = float(np.mean([m.result["seconds"] for m in row.finished]))
    return [
        *first,
        *(per_cent(row.summary(part)) for part in ("train", "val", "test")),
        *_against_baseline(comparison, row),
        per_cent(comparison.measured(row, "agreement")),
        row.count(),
        Exact("–".join(map(str, spread.values())), spread) if any(epochs) else "–",
        Exact(console.seconds(seconds), {"seconds": seconds}) if seconds else "–",
    ]


def _role(row: Row) -> str:
    """Return a row's label, with the student that it belongs to unless that is the network's name."""
    return row.label if row.lane in ("", row.model) else f"{row.label} {row.lane}"


def _against_baseline(comparison: Comparison, row: Row) -> tuple[str, str]:
    """Return the cells of a row's difference to its baseline and of the share of the gap that it closes.

    For teachers and assistants it is a difference of means; if there are several baselines, they have none.
    """
    lane, test = comparison.lane(row), row.summary("test")
    if lane is not None:
        paired = None if row is lane.baseline else lane.difference(row)
        gap = None if paired is None else lane.gap_closed(row)
        closed = "–" if gap is None else Exact(str(round(100 * gap)), {"": 100 * gap})
        return per_cent(None if paired is None else paired.mean, signed=True), closed
    baselines = [lane.baseline for lane in comparison.lanes if lane.baseline is not None]
    alone = baselines[0].summary("test") if len(baselines) == 1 and comparison.same_test else None
    return "–" if alone is None or test is None else per_cent(test.mean - alone.mean, signed=True), "–"
