"""What each setting of a sweep changes between cells equal in all others, and what the teacher adds at each value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from kdrun.results import statistics
from kdrun.results.runs import Run
from kdrun.results.statistics import Paired
from kdrun.results.sweep.sweep import Sweep, SweepCell, images_of, repeats
from kdrun.results.tables import Table, brief, difference_cells, per_cent

EVERYWHERE = "all cells"
ALONE = "baseline"
OF_STUDENT = ("seed", "seeds")  # repeats that name the seeds of the networks themselves

Key = tuple[str, ...]  # what identifies one of a role's networks: its images, repeats of other things, its seed


@dataclass(frozen=True)
class Trial:
    """The cells with the same settings: several if these are repeated with other seeds."""

    values: Mapping[str, str]
    cells: Sequence[SweepCell]

    def has(self, key: str, value: str) -> bool:
        """Return whether a setting has this value."""
        return self.values[key] == value

    def tests(self, role: str) -> dict[Key, tuple[str, float]]:
        """Return the fingerprint and the accuracy on test data of each network of a role."""
        return self._tests.setdefault(role, {k: v for cell in self.cells for k, v in _tests(cell, role)})

    @cached_property
    def _tests(self) -> dict[str, dict[Key, tuple[str, float]]]:
        return {}


@dataclass(frozen=True)
class Effect:
    """The differences in test accuracy that one change makes: for each trial, by network."""

    by_trial: Sequence[dict[Key, float]]

    @property
    def mean(self) -> Paired | None:
        """The mean over trials, tested over the networks that all trials have; None if there are none."""
        if not self.by_trial:
            return None
        seeds = [key for key in self.by_trial[0] if all(key in one for one in self.by_trial)]
        return statistics.paired([fmean(one[key] for one in self.by_trial) for key in seeds])

    @property
    def range(self) -> list[str]:
        """The smallest and the largest difference of a trial, as table cells."""
        means = [fmean(one.values()) for one in self.by_trial]
        return [per_cent(end(means), signed=True) for end in (min, max)]


def effects_table(sweeps: Sequence[Sweep]) -> Table | None:
    """Return what each setting changes, in all cells and at each value of the others.

    Each row compares cells that differ in one setting alone: the differences of a seed are averaged over the cells, and
    the interval is over seeds. The first rows are what the teacher adds: student − baseline of the same cell. None if
    fewer than two settings were swept, or if the values were searched, so that hardly two cells share one.
    """
    rows = [row for sweep in sweeps if not sweep.record.get("searched") for row in _rows(sweep)]
    if not rows:
        return None
    role = sweeps[0].role
    columns = ["setting", "against", "lane", "at", "cells", f"Δ {role}", "95%", "least", "most"]
    beside = [f"Δ {ALONE}", f"95% {ALONE}"]
    notes = [
        "Δ: difference in test accuracy between cells that are equal in all other settings, paired by seed and "
        "averaged over the cells, with its 95% t-interval over seeds, not corrected for the number of rows",
        "cells: pairs compared, identical trainings left out; n: seeds that all of them share; least, most: the "
        "smallest and the largest difference of a single cell",
    ]
    table = Table([*columns, *beside, "n"], rows, "What each setting changes", notes)
    return table.without_empty("lane", *beside) if role != ALONE else table.without("lane", *beside)


def everywhere(table: Table) -> Table:
    """Return the rows over all cells, without those at one value of another setting."""
    at = table.columns.index("at")
    rows = [row for row in table.rows if row[at] == EVERYWHERE]
    return Table(table.columns, rows, table.title, table.notes, table.sources).without("at")


def _rows(sweep: Sweep) -> Iterator[list[str]]:
    keys = [key for key in sweep.keys if not repeats(key)]
    trials = _trials(sweep, keys)
    if len(keys) < 2 or not trials:
        return
    lane = sweep.lane or "–"
    values = {key: list(dict.fromkeys(trial.values[key] for trial in trials)) for key in keys}
    if sweep.role != ALONE:
        for place, there in _places(trials, values):
            taught = Effect([d for t in there if (d := _differences(t.tests(sweep.role), t.tests(ALONE)))])
            if taught.by_trial:
                yield _row(["teacher", "no teacher", lane, place], taught, None)
    for key in keys:
        first, *others = values[key]
        places = list(_places(trials, {other: v for other, v in values.items() if other != key}))
        for value in others:
            for place, there in places:
                pairs = list(_pairs(there, key, first, value))
                own, alone = (
                    Effect([d for base, changed in pairs if (d := _differences(changed.tests(r), base.tests(r)))])
                    for r in (sweep.role, ALONE)
                )
                if own.by_trial:
                    yield _row([f"{key}={brief(value)}", brief(first), lane, place], own, alone)


def _row(names: list[str], own: Effect, alone: Effect | None) -> list[str]:
    mean, n = own.mean, own.mean.n if own.mean else 0
    beside = difference_cells(alone.mean if alone else None)
    return [*names, str(len(own.by_trial)), *difference_cells(mean), *own.range, *beside, str(n)]


def _trials(sweep: Sweep, keys: Sequence[str]) -> list[Trial]:
    by_values: dict[tuple[str, ...], list[SweepCell]] = {}
    for cell in sweep.done:
        by_values.setdefault(tuple(cell.values[key] for key in keys), []).append(cell)
    return [Trial(dict(zip(keys, values, strict=True)), cells) for values, cells in by_values.items()]


def _places(trials: Sequence[Trial], values: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, list[Trial]]]:
    """Yield all trials, then those at each value of every setting that has several values."""
    yield EVERYWHERE, list(trials)
    for key, several in values.items():
        for value in several if len(several) > 1 else ():
            yield f"{key}={brief(value)}", [trial for trial in trials if trial.has(key, value)]


def _pairs(trials: Sequence[Trial], key: str, first: str, value: str) -> Iterator[tuple[Trial, Trial]]:
    """Yield each trial at a setting's `first` value with the trial at `value` that is equal in all other settings."""

    def rest(trial: Trial) -> tuple[str, ...]:
        return tuple(text for name, text in trial.values.items() if name != key)

    changed = {rest(trial): trial for trial in trials if trial.has(key, value)}
    yield from ((t, changed[rest(t)]) for t in trials if t.has(key, first) and rest(t) in changed)


def _differences(own: Mapping[Key, tuple[str, float]], base: Mapping[Key, tuple[str, float]]) -> dict[Key, float]:
    """Return by network the difference in test accuracy; empty if both are the same trainings."""
    if {key: print_ for key, (print_, _) in own.items()} == {key: print_ for key, (print_, _) in base.items()}:
        return {}
    return {key: accuracy - base[key][1] for key, (_, accuracy) in own.items() if key in base}


def _tests(cell: SweepCell, role: str) -> Iterator[tuple[Key, tuple[str, float]]]:
    """Yield each network of a role in a cell, with its fingerprint and its test accuracy at the selected epoch."""
    run: Run = cell.run
    row, images = run.row(role), images_of(run)
    repeated = [f"{key}={v}" for key, v in cell.values.items() if repeats(key) and key not in OF_STUDENT]
    for point in row["points"] if row else ():
        if (chosen := point.get("selected")) and (test := chosen.get("test")):
            yield (images, *repeated, str(point["seed"])), (point["fingerprint"], float(test["accuracy"]))
