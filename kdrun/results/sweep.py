"""A sweep's table and picture: a row per cell, the best one by validation marked, failed cells with their reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdrun.results import statistics
from kdrun.results.runs import MAIN, Run, n_of, number, read_sweep
from kdrun.results.statistics import Summary
from kdrun.results.tables import Exact, Table, interval, per_cent
from kdrun.store import write_atomic

BOUNDED = ("alpha", "transfer.fraction")  # keys that end at 0 and 1: there is nothing beyond to try
# numbers without an order worth searching, among which the best is merely the luckiest
REPEATS = ("seed", "seeds", "teacher.seed", "dataset.split_seed", "dataset.data_seed", "transfer.seed")
# what changes the validation images, on which cells could be held against each other
OTHER_IMAGES = ("dataset", "dataset.split_seed", "dataset.val_fraction", "dataset.data_seed")
UNFINISHED = ("running", "waiting", "interrupted", "not started")


@dataclass(frozen=True)
class Cell:
    """One cell: what was swept, and what came of it."""

    number: int
    values: Mapping[str, str]  # swept key -> value
    run: Run


class Sweep:
    """All cells of one sweep folder, read at any time. Raises ValueError where its sweep.json is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record, runs = read_sweep(folder)
        typed = [dict(o.split("=", 1) for o in cell["overrides"] if "=" in o) for cell in self.record["cells"]]
        keys = dict.fromkeys(key for cell in typed for key in cell)
        self.keys = [k for k in keys if len({cell.get(k) for cell in typed}) > 1] or list(keys)[:1]
        self.cells = [
            Cell(cell["number"], {k: values.get(k, "–") for k in self.keys}, run)
            for cell, values, run in zip(self.record["cells"], typed, runs, strict=True)
        ]
        self.role = next((role for role in MAIN if any(c.run.row(role) for c in self.cells)), "student")
        self.done = [cell for cell in self.cells if self.summary(cell, "test")]
        self.best = self._best()

    def summary(self, cell: Cell, part: str, role: str | None = None) -> Summary | None:
        """Summarise a cell's accuracy on "val" or "test", of the network that the sweep is about or of `role`."""
        return number(cell.run.row(role or self.role), f"{part}_accuracy")

    def _best(self) -> Cell | None:
        """Choose on validation: highest mean accuracy, then lowest mean loss, then the first.

        A cell that lost a seed is chosen only where all did. Nothing is chosen among mere repeats, nor among
        cells whose validation images differ.
        """
        ranked = []
        for cell in self.done if self._comparable() else ():
            row = cell.run.row(self.role)
            accuracy, nll = self.summary(cell, "val"), number(row, "val_nll")
            if row is not None and accuracy is not None and nll is not None:
                ranked.append(((row["n"] < row["asked"], -accuracy.mean, nll.mean, cell.number), cell))
        return min(ranked, key=lambda pair: pair[0])[1] if ranked else None

    def _comparable(self) -> bool:
        """Say whether one cell can be better than another."""
        return not (set(self.keys) <= set(REPEATS) or set(self.keys) & set(OTHER_IMAGES))

    def shared(self, role: str) -> Mapping[str, Any] | None:
        """Give a role's row where all cells rest on the same trainings of it."""
        rows = [cell.run.row(role) for cell in self.done]
        if role == self.role or not rows or None in rows:
            return None
        prints = {tuple(p["fingerprint"] for p in row["points"]) for row in rows if row}
        return rows[0] if len(prints) == 1 else None

    def numeric_keys(self) -> list[str]:
        """Give the swept keys whose every value is a number."""
        return [k for k in self.keys if all(_number(cell.values[k]) is not None for cell in self.cells)]

    def at_edge(self) -> list[str]:
        """Warn of each numeric key whose best value is the smallest or the largest that has numbers."""
        if self.best is None:
            return []
        told = []
        for key in self.numeric_keys():
            tried = sorted({float(cell.values[key]) for cell in self.done})
            value = float(self.best.values[key])
            if key in REPEATS or len(tried) < 2 or value not in (tried[0], tried[-1]):
                continue
            if key in BOUNDED and value in (0.0, 1.0):
                continue
            end = "smallest" if value == tried[0] else "largest"
            told.append(
                f"{key}={self.best.values[key]} lies at the edge of the grid, the {end} tried: widen the grid there"
            )
        return told

    @cached_property
    def holm(self) -> dict[int, float]:
        """Adjust the p-values of all cells but the one chosen on validation for their number."""
        others = {c.number: c.run.paired["p"] for c in self.done if c is not self.best and c.run.paired}
        others = {n: p for n, p in others.items() if p is not None}
        return dict(zip(others, statistics.holm(list(others.values())), strict=True))

    def verdict(self) -> str:
        """Say what the sweep shows: the cell chosen on validation, and how it did on test data."""
        empty = [cell for cell in self.cells if cell not in self.done]
        unfinished = sum(cell.run.status in UNFINISHED for cell in empty)
        parts = [f"{n} {word}" for n, word in ((unfinished, "not finished"), (len(empty) - unfinished, "failed")) if n]
        state = f"Partial, of {len(self.cells)} cells {', '.join(parts)}. " if parts else ""
        if self.best is None:
            if not self.done:
                return state + "No cell has numbers."
            if not self._comparable():
                return state + "None is chosen: the cells are mere repeats, or have different validation images."
            return state + "No cell was held against validation data: none is chosen."
        chosen = " ".join(f"{k}={v}" for k, v in self.best.values.items()) or "the only cell"
        val = per_cent(self.summary(self.best, "val"))
        said = (self.best.run.comparison or {}).get("verdict", "")
        return f"{state}Best of {len(self.done)} by validation: {chosen} ({val}%). {said}"

    def table(self) -> Table:
        """Give the table that people read: what all cells share once, then a row per cell."""
        shared = {role: row for role in ("teacher", "baseline") if (row := self.shared(role))}
        own = [role for role in ("teacher", "baseline") if role != self.role and role not in shared]
        columns = [
            *self.keys,
            "best",
            *(f"{role} %" for role in own),
            "val %",
            "test %",
            "Δ base",
            "95%",
            "p",
            "p Holm",
            "n",
            "status",
        ]
        lead = len(self.keys)
        rows = []
        for role, row in shared.items():
            accuracies = [per_cent(number(row, f"{part}_accuracy")) for part in ("val", "test")]
            name = [f"{role} {row['model']}", *[""] * (lead - 1)][:lead]
            rows.append([*name, "", *["–"] * len(own), *accuracies, *["–"] * 4, n_of(row), "done"])
        rows += [self._cells(cell, own) for cell in self.cells]
        table = Table(
            columns, rows, self.verdict(), self._notes(), [f"made by: {self.record.get('command')}", *self._sources()]
        )
        return table.without_empty(*columns[lead:-1])

    def _cells(self, cell: Cell, own: list[str]) -> list[str]:
        paired = cell.run.paired or {}
        return [
            *cell.values.values(),
            "★" if cell is self.best else "",
            *(per_cent(self.summary(cell, "test", role)) for role in own),
            per_cent(self.summary(cell, "val")),
            per_cent(self.summary(cell, "test")),
            per_cent(paired["mean"], signed=True) if paired else "–",
            interval(paired.get("low"), paired.get("high")),
            _p(paired.get("p")),
            _p(self.holm.get(cell.number)),
            n_of(cell.run.row(self.role)),
            cell.run.status,
        ]

    def _notes(self) -> list[str]:
        told = self.at_edge()
        if self.best is not None:
            uncorrected = (self.best.run.paired or {}).get("p") is not None
            alone = "; only that cell's p on test data stands uncorrected" if uncorrected else ""
            told.append(f"★: highest mean validation accuracy of {_many(len(self.done), 'trial')}{alone}")
        if self.holm:
            others = len(self.holm)
            need = statistics.seeds_needed(others)
            told.append(
                f"p Holm: corrected for the {_many(others, 'other cell')}; it can fall below 0.05 from {need} seeds on"
            )
        failed = sum(cell.run.status not in ("done", *UNFINISHED) for cell in self.cells)
        if failed:
            told.append(f"{failed} of {len(self.cells)} cells failed; the same command runs only what is missing")
        reasons: dict[str, list[str]] = {}
        for cell in self.cells:
            if cell.run.status != "done" and cell.run.reason:
                name = " ".join(f"{k}={v}" for k, v in cell.values.items()) or f"cell {cell.number}"
                reasons.setdefault(cell.run.state, []).append(name)
        return told + [f"{', '.join(cells)}: {state}" for state, cells in reasons.items()]

    def _sources(self) -> list[str]:
        return [f"cell {cell.number}: {cell.run.name}" for cell in self.cells]

    def data(self) -> dict[str, Any]:
        """Give sweep.json with its numbers."""
        cells = []
        for cell, recorded in zip(self.cells, self.record["cells"], strict=True):
            comparison = cell.run.comparison or {}
            numbers = {k: comparison.get(k) for k in ("rows", "paired", "verdict", "formula", "gap_closed")}
            state = {"status": cell.run.status, "reason": cell.run.reason, "swept": dict(cell.values)}
            cells.append({**recorded, **state, "p_holm": self.holm.get(cell.number), **numbers})
        best = None if self.best is None else {"number": self.best.number, "swept": dict(self.best.values)}
        whole = {"kind": "sweep", "verdict": self.verdict(), "best": best, "at_edge": self.at_edge()}
        return {**self.record, **whole, "cells": cells, "table": self.table().to_json()}


def write_sweep(folder: Path) -> str:
    """Write sweep.{md,csv,json,tex,png,svg} into a sweep's folder, whatever its state; give the terminal's text."""
    from kdrun.results.plots import plot_sweep

    sweep = Sweep(folder)
    table = sweep.table()
    picture = plot_sweep(sweep, folder)
    shown = f"\n![accuracy over the sweep]({picture.name})\n" if picture else ""
    write_atomic(folder / "sweep.md", (table.to_markdown() + shown).encode())
    write_atomic(folder / "sweep.csv", table.to_csv().encode())
    write_atomic(folder / "sweep.tex", table.to_latex().encode())
    write_atomic(folder / "sweep.json", (json.dumps(sweep.data(), indent=2) + "\n").encode())
    return table.to_text()


def _many(n: int, word: str) -> str:
    return f"{n} {word}{'s'[: n != 1]}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _p(p: float | None) -> str:
    return "–" if p is None else Exact(statistics.p_value(p).removeprefix("= "), {"": p})
