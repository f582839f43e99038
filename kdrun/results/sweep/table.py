"""The table of a sweep: rows that all cells share, then a row per cell and student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdrun.results import columns as extra
from kdrun.results import statistics, tested
from kdrun.results.runs import UNFINISHED, n_of, number, reasons
from kdrun.results.tables import CHOSEN, Sentences, Table, difference_cells, p_cell, per_cent

if TYPE_CHECKING:
    from kdrun.results.sweep.sweep import Sweep, SweepCell

BESIDE = ("teacher", "baseline")  # the roles that a student is compared with


def sweep_table(sweeps: Sequence[Sweep]) -> Table:
    """Return the table of a sweep; `sweeps` are its views, one for each student."""
    first = sweeps[0]
    own = [role for role in BESIDE if any(role != sweep.role and not sweep.shared(role) for sweep in sweeps)]
    columns = [*first.keys, "lane", "best", *(f"{role} %" for role in own), "val %", "test %", "Δ base", "95%", "p",
               "p Holm", "n", "status"]  # fmt: skip
    config = next((run.config for run in first.runs if run.config.get("columns")), {})
    laid = [line for i, sweep in enumerate(sweeps) for line in _rows(sweep, own, before=sweeps[:i])]
    outputs = Path(config.get("outputs") or first.folder)  # with the folder, a store beside the sweep is found
    added = extra.of_records(config.get("columns") or [], [known for known, _ in laid], outputs)
    columns[-1:-1] = added.headings
    rows = [[*cells[:-1], *more, cells[-1]] for (_, cells), more in zip(laid, added.cells, strict=True)]
    titles = [sweep.verdict() if len(sweeps) == 1 else f"{sweep.lane or '–'}: {sweep.verdict()}" for sweep in sweeps]
    notes = [*(note for sweep in sweeps for note in _notes(sweep)), *added.notes]
    if len(sweeps) > 1:
        notes.append("lane: which student of a cell; the choice and the correction are separate for each lane")
    notes += first.record.get("notes") or []
    sources = [f"cell {cell.number}: {cell.run.name}" for sweep in sweeps for cell in sweep.cells]
    sources = [f"command: {first.record.get('command')}", *dict.fromkeys(sources)]
    table = Table(columns, rows, Sentences(titles), list(dict.fromkeys(notes)), sources, len(first.keys))
    return table.without_empty(*columns[len(first.keys) : -1])


def _rows(sweep: Sweep, own: Sequence[str], before: Sequence[Sweep]) -> Iterator[tuple[extra.RecordedRow, list[str]]]:
    """Yield each line of the table with its source: rows that all cells share, then the cells.

    Shared rows of students `before` this one are left out.
    """
    lead = len(sweep.keys)
    for role in BESIDE:
        for row in sweep.shared(role) if role not in own else ():
            if any(row in other.shared(role) for other in before):
                continue
            accuracies = [per_cent(number(row, f"{part}_accuracy")) for part in ("val", "test")]
            name = [f"{row.get('label') or role} {row['model']}", *[""] * (lead - 1)][:lead]
            lane = str(row.get("lane") or "–")
            cells = [*name, lane, "", *["–"] * len(own), *accuracies, *["–"] * 4, n_of(row), "done"]
            run = sweep.done[0].run
            teacher = run.teacher() if sweep.shared("teacher") else None  # None if cells have different teachers
            yield extra.RecordedRow(run, row, teacher), cells
    for cell in sweep.cells:
        yield extra.RecordedRow(cell.run, cell.run.row(sweep.role), cell.run.teacher()), _cells(sweep, cell, own)


def _cells(sweep: Sweep, cell: SweepCell, own: Sequence[str]) -> list[str]:
    return [
        *cell.shown.values(),
        sweep.lane or "–",
        CHOSEN if cell is sweep.best else "",
        *(per_cent(sweep.summary(cell, "test", role)) for role in own),
        per_cent(sweep.summary(cell, "val")),
        per_cent(sweep.summary(cell, "test")),
        *difference_cells(cell.run.paired),
        p_cell(tested.p_value(cell.run)),
        p_cell(sweep.best_of_all if cell is sweep.best else sweep.holm.get(cell.number)),
        n_of(cell.run.row(sweep.role)),
        cell.run.status,
    ]


def _notes(sweep: Sweep) -> list[str]:
    notes = sweep.at_edge()
    if sweep.best is not None:
        alone = ""
        if sweep.best_of_all is not None:
            alone = (
                "; that cell's p on test data is uncorrected, which assumes that gains on validation and on test data "
                f"are nearly independent; its p Holm is corrected for all {sweep.tests} cells"
            )
        notes.append(f"★: highest mean validation accuracy of {_many(len(sweep.done), 'trial')}{alone}")
    if others := len(sweep.holm):
        need = statistics.seeds_needed(others)
        cells = _many(others, "cell" if sweep.best is None else "other cell")
        notes.append(f"p Holm: corrected for the {cells}; it can be below 0.05 with {need} or more seeds")
    if sweep.lane:
        notes = [f"{sweep.lane}: {note}" for note in notes]
    if failed := sum(cell.run.status not in ("done", *UNFINISHED) for cell in sweep.cells):
        notes.append(f"{failed} of {len(sweep.cells)} cells failed; the same command runs only what is missing")
    return notes + reasons((cell.name or f"cell {cell.number}", cell.run) for cell in sweep.cells)


def _many(n: int, word: str) -> str:
    return f"{n} {word}{'s'[: n != 1]}"
