"""A sweep: its cells, the best one by validation, and the test of its gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from kdrun.config import MEASURING
from kdrun.records import RowJson
from kdrun.results import evidence, statistics, tested
from kdrun.results.find import find_folder
from kdrun.results.runs import MAIN, UNFINISHED, Run, number, read_run, read_sweep
from kdrun.results.statistics import Correlation, Summary
from kdrun.results.tables import brief, per_cent
from kdrun.spec import canonical

BOUNDED = ("alpha",)  # keys with values in [0, 1], beyond which no grid can go
# keys whose values merely repeat a training: the best of them is the luckiest
REPEATS = ("seed", "seeds", "dataset.split_seed", "dataset.data_seed")  # and all that end in .seed
# keys that decide how much data the student learns from: more is better, so nothing is chosen among such cells
NARROWED = ("transfer.fraction", "transfer.omit_classes", "transfer.labels")
EQUAL = 1e-12  # accuracies closer than this are equal but for rounding
DEPENDENT = 0.3  # from this correlation on (see `luck`), choosing on validation doubles the rate of false gains
SAME_IMAGES = ("crop_padding", "flip", "max_resident_gb")  # keys of a data set that do not change which images it has


@dataclass(frozen=True)
class SweepCell:
    """One cell of a sweep: its values of the swept keys, and its run."""

    number: int
    values: Mapping[str, str]  # swept key -> value
    run: Run

    @property
    def shown(self) -> dict[str, str]:
        """The values as they are shown: shortened, since those of a search have some 17 digits."""
        return {key: brief(value) for key, value in self.values.items()}

    @property
    def name(self) -> str:
        """The values in words; empty if nothing was swept."""
        return " ".join(f"{key}={value}" for key, value in self.shown.items())


class Sweep:
    """All cells of one sweep folder in any state; if cells have several students, a view of one student in all cells.

    `lane` is that student's name, by default the first. Raise ValueError if sweep.json is missing or damaged.
    """

    def __init__(self, folder: Path, lane: str | None = None) -> None:
        self.folder = folder
        self.record, self.runs = read_sweep(folder)
        views = [run.by_lane() for run in self.runs]
        self.lanes = list(dict.fromkeys(one.lane for run in views for one in run if one.comparison is not None)) or [""]
        self.lane = self.lanes[0] if lane is None else lane
        typed = [
            dict(o.split("=", 1) for o in cell["overrides"] if "=" in o and not o.startswith("hydra"))
            for cell in self.record["cells"]
        ]
        keys = dict.fromkeys(key for cell in typed for key in cell)
        self.keys = [k for k in keys if len({cell.get(k) for cell in typed}) > 1] or list(keys)[:1]
        self.cells = [
            SweepCell(cell["number"], {k: values.get(k, "–") for k in self.keys}, one)
            for cell, values, run in zip(self.record["cells"], typed, views, strict=True)
            for one in run
            if one.comparison is None or one.lane == self.lane
        ]
        self.role = next((role for role in MAIN if any(c.run.row(role) for c in self.cells)), "student")
        self.done = [cell for cell in self.cells if self.summary(cell, "test")]
        self.best = self._best()

    def summary(self, cell: SweepCell, part: str, role: str | None = None) -> Summary | None:
        """Summarise a cell's accuracy on "val" or "test", by default of the role that the sweep is about."""
        row = cell.run.teacher() if role == "teacher" else cell.run.row(role or self.role)
        return number(row, f"{part}_accuracy")

    def _best(self) -> SweepCell | None:
        """Return the best cell on validation: highest mean accuracy, then lowest mean loss, then the first.

        A cell that lost a seed is chosen only if all did. None if the cells are mere repeats, learn from different
        amounts of data, or have different images.
        """
        ranked = []
        for cell in self.done if self._comparable() else ():
            row = cell.run.row(self.role)
            accuracy, nll = self.summary(cell, "val"), number(row, "val_nll")
            if row is not None and accuracy is not None and nll is not None:
                ranked.append(((row["n"] < row["asked"], -accuracy.mean, nll.mean, cell.number), cell))
        return min(ranked, key=lambda pair: pair[0])[1] if ranked else None

    def _comparable(self) -> bool:
        unordered = all(repeats(key) or key in NARROWED for key in self.keys)
        return not unordered and len({images_of(cell.run) for cell in self.done}) <= 1

    def shared(self, role: str) -> list[RowJson]:
        """Return the rows of "teacher" (all that the student learned from) or "baseline", if all cells share them.

        The last row that is not an assistant's is the one that students are compared with.
        """
        by_cell = [cell.run.teachers() if role == "teacher" else cell.run.rows(role) for cell in self.done]
        if role == self.role or not by_cell or not all(by_cell):
            return []
        prints = {tuple(point["fingerprint"] for row in rows for point in row["points"]) for rows in by_cell}
        return by_cell[0] if len(prints) == 1 else []

    def numeric_keys(self) -> list[str]:
        """Return the swept keys that have only numbers as values."""
        return [k for k in self.keys if all(_number(cell.values[k]) is not None for cell in self.cells)]

    def at_edge(self) -> list[str]:
        """Return a warning for each numeric key whose best value is the smallest or the largest one tried."""
        if self.best is None or self.record.get("searched"):  # a search has no grid that could be wider
            return []
        if tested.nothing_distilled(self.best.run):  # a wider grid cannot change the baseline
            return []
        warnings = []
        for key in self.numeric_keys():
            tried = sorted({float(cell.values[key]) for cell in self.done})
            value = float(self.best.values[key])
            bounded = key in BOUNDED and value in (0.0, 1.0)
            if repeats(key) or key in NARROWED or bounded or len(tried) < 2 or value not in (tried[0], tried[-1]):
                continue
            end = "smallest" if value == tried[0] else "largest"
            warnings.append(f"{key}={self.best.values[key]} is the {end} value tried: extend the grid beyond it")
        return warnings

    @cached_property
    def holm(self) -> dict[int, float]:
        """The p-values, by cell, of all cells but the one chosen on validation, corrected for their number."""
        best = None if self.best is None else tested.pair(self.best.run)
        others = [c for c in self.done if c is not self.best and (best is None or tested.pair(c.run) != best)]
        adjusted = tested.corrected([cell.run for cell in others])
        return {cell.number: p for cell, p in zip(others, adjusted, strict=True) if p is not None}

    @cached_property
    def best_of_all(self) -> float | None:
        """The p-value of the cell chosen on validation, corrected for all cells; None if none is chosen."""
        if self.best is None or self.tests < 2:
            return None
        return tested.corrected([cell.run for cell in self.done])[self.done.index(self.best)]

    @property
    def tests(self) -> int:
        """The number of different pairs of student and baseline that were tested."""
        return tested.tests([cell.run for cell in self.done])

    @cached_property
    def luck(self) -> Correlation | None:
        """The correlation of gains on validation and on test data within each cell, over all cells.

        The p-value of the cell chosen on validation needs no correction only if these are independent.
        """
        pairs = {pair: tested.gains(cell.run) for cell in self.done if (pair := tested.pair(cell.run)) is not None}
        return statistics.luck(list(pairs.values()))

    def verdict(self) -> str:
        """Return the verdict in words: the cell chosen on validation, and its verdict on test data."""
        empty = [cell for cell in self.cells if cell not in self.done]
        unfinished = sum(cell.run.status in UNFINISHED for cell in empty)
        failed = len(empty) - unfinished
        state = f"{len(self.done)} of {len(self.cells)} cells finished{f', {failed} failed' if failed else ''}. "
        return ((state if empty else "") + " ".join(self._sentences())).rstrip()

    def _sentences(self) -> list[str]:
        if not self.done:
            return []
        if self.best is None and set(self.keys) & set(NARROWED):
            return [*self.made_up_for(), "No cell is chosen: the cells learn from different training data."]
        if self.best is None and not self._comparable():
            return ["No cell is chosen: the cells only repeat a training, or were tested on different images."]
        if self.best is None:
            return ["No cell is chosen: nothing was held out for validation."]
        chosen = self.best.name or "the only cell"
        val = per_cent(self.summary(self.best, "val"))
        best = f"Best of {len(self.done)} by validation: {chosen} ({val}%)."
        verdict = (self.best.run.comparison or {}).get("verdict", "")
        return [*([self.beaten] if self.beaten else []), best, f"{verdict}{self._caveat()}"]

    @cached_property
    def beaten(self) -> str:
        """Advice to ship the baseline if no student is better on validation, else empty; the choice stays the same."""
        alone = [(val, cell) for cell in self.done if (val := self.summary(cell, "val", "baseline")) is not None]
        best = None if self.best is None else self.summary(self.best, "val")
        if self.role != "student" or best is None or not alone:
            return ""
        val, cell = max(alone, key=lambda pair: pair[0].mean)
        if best.mean - val.mean > EQUAL:
            return ""
        which = "" if self.shared("baseline") else f" of {cell.name}"
        return f"No cell beats the baseline on validation: ship the baseline{which} ({per_cent(val)}%)."

    def made_up_for(self) -> list[str]:
        """Return a sentence for each fraction of the images: the share of the lost accuracy that the teacher recovers.

        That is (student − baseline) / (baseline with the most images − baseline), on test data. Empty if anything
        else was swept; a fraction is left out if its baseline is as good as that with the most images.
        """
        key = NARROWED[0]
        if self.keys != [key]:
            return []
        cells = sorted(self.done, key=lambda cell: float(cell.values[key]))
        sentences = []
        for cell in cells[:-1]:
            alone, taught, most = (
                self.summary(one, "test", role)
                for one, role in ((cell, "baseline"), (cell, "student"), (cells[-1], "baseline"))
            )
            if alone is None or taught is None or most is None or most.mean <= alone.mean:
                continue
            share = (taught.mean - alone.mean) / (most.mean - alone.mean)
            what = f"recovers {100 * share:.0f}% of" if share >= 0 else f"adds {-100 * share:.0f}% to"
            sentences.append(
                f"With {100 * float(cell.values[key]):g}% of the images, the teacher {what} the accuracy lost: "
                f"{per_cent(taught)}% with it, {per_cent(alone)}% without, and {per_cent(most)}% without it on "
                f"{100 * float(cells[-1].values[key]):g}% of the images."
            )
        return sentences

    def _caveat(self) -> str:
        """Return the caveat to the p-value of the chosen cell; empty if nothing was chosen among several."""
        if (p := self.best_of_all) is None:
            return ""
        luck = self.luck
        sentence = f" That p is not corrected for the choice among {self.tests} cells; Holm-corrected p "
        sentence += evidence.p_value(p)
        if luck is not None:
            sentence += f". Gains on validation and on test data correlate, r = {luck.r:.2f} (n = {luck.n})"
        if luck is not None and luck.r >= DEPENDENT:
            sentence += f": with r of {DEPENDENT:g} or more, use the corrected p"
        return f"{sentence}."


def every_lane(folder: Path) -> list[Sweep]:
    """Return a view of a sweep for each of its students. Raise ValueError as Sweep does."""
    first = Sweep(folder)
    return [first, *(Sweep(folder, lane) for lane in first.lanes[1:])]


class Named(NamedTuple):
    """The run that a name means; for a sweep the chosen cell, how it was chosen, and a warning about its student."""

    run: Run
    how: str = ""
    warning: str = ""


def named_run(name: str, outputs: Path, role: str = "student") -> Named:
    """Return the run that `name` means; of a sweep its best cell.

    If there are several students, `role` may name one of them. Raise ValueError if there is no such run, if it
    trained nothing, or if no cell of the sweep is the best.
    """
    folder = find_folder(name, outputs)
    if (folder / "run.json").is_file():
        run = read_run(folder)
        if not run.record:
            raise ValueError(f"{name}: {run.reason}")
        if (verb := run.record.get("verb")) in MEASURING:
            raise ValueError(
                f"{name}: is the run of kdrun {verb}, which trains nothing; name the run that trained the networks"
            )
        return Named(run)
    sweeps = every_lane(folder)
    sweep: Sweep = next((one for one in sweeps if one.lane and role.endswith(f" {one.lane}")), sweeps[0])
    best = sweep.best
    if best is None:
        cells = [cell.run.name for cell in sweep.done] or [run.name for run in sweep.runs[:1]]
        raise ValueError(f"{name}: is a sweep. {sweep.verdict()} Name one of its cells, such as {', '.join(cells[:2])}")
    values = best.name or "the only cell"
    # read anew: the sweep's view of a cell may be about one of several students
    how = f"cell {best.run.name}, the best of {len(sweep.done)} by validation ({values})"
    return Named(read_run(best.run.folder), how, sweep.beaten)


def images_of(run: Run) -> str:
    """Return what identifies a run's images: the settings of its data set, except for how the images are used."""
    settings = run.config.get("dataset") or {}
    return canonical({key: value for key, value in settings.items() if key not in SAME_IMAGES})


def repeats(key: str) -> bool:
    """Return whether another value of a key merely repeats the training."""
    return key in REPEATS or key.endswith(".seed")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
