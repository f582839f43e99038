"""What each setting of a sweep changes in cells that are equal in all others, and what the teacher adds where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from kdrun.results import statistics
from kdrun.results.runs import Run
from kdrun.results.statistics import Paired
from kdrun.results.sweep.sweep import Sweep, SweepCell, images_of, repeats
from kdrun.results.tables import Table, difference_cells, per_cent

EVERYWHERE = "–"  # in the column of places: all cells
ALONE = "baseline"


@dataclass(frozen=True)
class Effect:
    """The differences in test accuracy that one change makes: by cell, each by seed."""

    by_cell: Sequence[dict[int, float]]

    @property
    def mean(self) -> Paired | None:
        """The mean over cells, tested over the seeds that all cells have; None if there are no such seeds."""
        if not self.by_cell:
            return None
        seeds = [seed for seed in self.by_cell[0] if all(seed in one for one in self.by_cell)]
        return statistics.paired([fmean(one[seed] for one in self.by_cell) for seed in seeds])

    @property
    def range(self) -> list[str]:
        """The smallest and the largest difference of a cell, as table cells."""
        means = [fmean(one.values()) for one in self.by_cell if one]
        return [per_cent(end(means), signed=True) if means else "–" for end in (min, max)]


def effects_table(sweeps: Sequence[Sweep]) -> Table | None:
    """Return what each setting changes, in all cells and at each value of the others; None if one setting was swept.

    Each row compares cells that differ in one setting alone: the differences of a seed are averaged over the cells, and
    the interval is over seeds. The first rows are what the teacher adds: student − baseline of the same cell.
    """
    rows = [row for sweep in sweeps if len(sweep.keys) > 1 and sweep.done for row in _rows(sweep)]
    if not rows:
        return None
    role = sweeps[0].role
    columns = ["setting", "against", "lane", "at", "cells", f"Δ {role}", "95%", "least", "most"]
    beside = [f"Δ {ALONE}", f"95% {ALONE}"]
    notes = [
        "Δ: difference in test accuracy between cells that are equal in all other settings, paired by seed and "
        "averaged over the cells, with its 95% t-interval over seeds, not corrected for the number of rows; least, "
        "most: of one cell"
    ]
    table = Table([*columns, *beside, "n"], rows, "What each setting changes", notes)
    return table.without_empty("lane", *beside) if role != ALONE else table.without("lane", *beside)


def everywhere(table: Table) -> Table:
    """Return the rows over all cells, without those at one value of another setting."""
    at = table.columns.index("at")
    rows = [row for row in table.rows if row[at] == EVERYWHERE]
    return Table(table.columns, rows, table.title, table.notes, table.sources).without("at")


def _rows(sweep: Sweep) -> Iterator[list[str]]:
    for place, cells in _places(sweep, ""):
        taught = Effect([d for c in cells if (d := _differences(c.run, c.run, sweep.role, ALONE))])
        if sweep.role != ALONE and taught.by_cell:
            yield _row(["teacher", "none", sweep.lane or "–", place], taught, None)
    for key in sweep.keys:
        first, *others = dict.fromkeys("" if repeats(key) else cell.shown[key] for cell in sweep.done)
        for value in others:
            for place, cells in _places(sweep, key):
                pairs = list(_pairs(cells, key, first, value))
                own, alone = (
                    Effect([d for base, changed in pairs if (d := _differences(changed.run, base.run, role, role))])
                    for role in (sweep.role, ALONE)
                )
                if own.by_cell:
                    yield _row([f"{key}={value}", first, sweep.lane or "–", place], own, alone)


def _row(names: list[str], own: Effect, alone: Effect | None) -> list[str]:
    mean, n = own.mean, own.mean.n if own.mean else 0
    beside = difference_cells(alone.mean if alone else None)
    return [*names, str(len(own.by_cell)), *difference_cells(mean), *own.range, *beside, str(n)]


def _places(sweep: Sweep, key: str) -> Iterator[tuple[str, list[SweepCell]]]:
    """Yield all cells, then those at each value of every setting but `key`, if it has several."""
    yield EVERYWHERE, sweep.done
    for other in sweep.keys:
        values = list(dict.fromkeys(cell.shown[other] for cell in sweep.done))
        for value in values if other != key and not repeats(other) and len(values) > 1 else ():
            yield f"{other}={value}", [cell for cell in sweep.done if cell.shown[other] == value]


def _pairs(cells: Sequence[SweepCell], key: str, first: str, value: str) -> Iterator[tuple[SweepCell, SweepCell]]:
    """Yield the cells with the first value of a setting, each with the cell that has another value of it alone."""

    def rest(cell: SweepCell) -> tuple[str, ...]:
        return tuple(text for name, text in cell.shown.items() if name != key)

    changed = {rest(cell): cell for cell in cells if cell.shown[key] == value}
    for cell in cells:
        other = changed.get(rest(cell)) if cell.shown[key] == first else None
        if other is not None and images_of(other.run) == images_of(cell.run):
            yield cell, other


def _differences(own: Run, base: Run, own_role: str, base_role: str) -> dict[int, float]:
    """Return by seed the difference in test accuracy; empty if both are the same trainings."""
    left, right = _tests(own, own_role), _tests(base, base_role)
    if {seed: print_ for seed, (print_, _) in left.items()} == {seed: print_ for seed, (print_, _) in right.items()}:
        return {}
    return {seed: accuracy - right[seed][1] for seed, (_, accuracy) in left.items() if seed in right}


def _tests(run: Run, role: str) -> dict[int, tuple[str, float]]:
    """Return by seed a role's fingerprint and its accuracy on test data at the selected epoch."""
    row = run.row(role)
    return {
        point["seed"]: (point["fingerprint"], float(test["accuracy"]))
        for point in (row["points"] if row else ())
        if (chosen := point.get("selected")) and (test := chosen.get("test"))
    }
