"""A sweep's table and picture: a row per cell, the best one by validation marked, failed cells with their reason."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrun.results import statistics
from kdrun.results.collect import Found, _summary, read_run
from kdrun.results.statistics import Summary
from kdrun.results.tables import Table, per_cent
from kdrun.store import write_atomic


@dataclass(frozen=True)
class Cell:
    """One cell: what was swept, and what came of it."""

    number: int
    values: Mapping[str, str]  # swept key -> value
    run: Found
    status: str
    reason: str | None

    def row(self, role: str) -> Mapping[str, Any] | None:
        """Give the comparison's row of a role."""
        return self.run.row(role)


class Sweep:
    """All cells of one sweep folder, read at any time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = json.loads((folder / "sweep.json").read_text())
        typed = [dict(o.split("=", 1) for o in cell["overrides"] if "=" in o) for cell in self.record["cells"]]
        keys = dict.fromkeys(key for cell in typed for key in cell)
        self.keys = [k for k in keys if len({cell.get(k) for cell in typed}) > 1] or list(keys)[:1]
        self.cells = []
        for cell, values in zip(self.record["cells"], typed, strict=True):
            run = read_run(folder / str(cell["number"]))
            known = bool(run.record)
            status = run.status if known else "waiting"
            if status == "running" and self.record["status"] != "running":
                status = "interrupted"
            swept = {k: values.get(k, "–") for k in self.keys}
            self.cells.append(Cell(cell["number"], swept, run, status, run.record.get("reason") or run.problem if known else None))
        main = next((r for c in self.cells for r in ("student", "baseline", "teacher") if c.row(r)), "student")
        self.role = main  # whose accuracy the sweep is about
        self.best = self._best()

    @property
    def done(self) -> list[Cell]:
        """Cells that have numbers."""
        return [cell for cell in self.cells if cell.row(self.role) and _summary(cell.row(self.role), "test_accuracy")]

    def _best(self) -> Cell | None:
        """Choose on validation: highest mean accuracy, then lowest mean loss, then the first."""
        ranked = []
        for cell in self.done:
            row = cell.row(self.role)
            accuracy, nll = _summary(row, "val_accuracy"), _summary(row, "val_nll")
            if accuracy is not None and nll is not None:
                ranked.append((-accuracy.mean, nll.mean, cell.number, cell))
        return min(ranked, key=lambda r: r[:3])[3] if ranked else None

    def at_edge(self) -> list[str]:
        """Name the numeric keys whose best value is the smallest or the largest that was tried."""
        if self.best is None:
            return []
        found = []
        for key in self.keys:
            tried = sorted({_number(c.values[key]) for c in self.cells if _number(c.values[key]) is not None})  # type: ignore[type-var]
            value = _number(self.best.values[key])
            if value is not None and len(tried) > 2 and value in (tried[0], tried[-1]):
                found.append(f"{key}={self.best.values[key]} is the {'smallest' if value == tried[0] else 'largest'} tried: widen the grid there")
        return found

    def _shared(self, role: str) -> Mapping[str, Any] | None:
        """Give a role's row where all cells have the same trainings of it."""
        rows = [row for cell in self.done if (row := cell.row(role))]
        prints = {tuple(p["fingerprint"] for p in row["points"]) for row in rows}
        return rows[0] if len(prints) == 1 and len(self.done) == len(rows) else None

    def table(self) -> Table:
        """Give the table that people read."""
        columns = [*self.keys, "", "val %", "test %", "Δ base", "95%", "p", "p Holm", "n", "status"]
        holm = self._holm()
        rows = []
        shared = [r for r in ("teacher", "baseline") if r != self.role and self._shared(r)]
        for role in shared:
            row = self._shared(role)
            assert row is not None
            accuracies = [per_cent(_summary(row, f"{part}_accuracy")) for part in ("val", "test")]
            rows.append([f"({role} {row['model']})", *[""] * (len(self.keys) - 1), "", *accuracies, "–", "–", "–", "–", str(row["n"]), "done"])
        for cell in self.cells:
            row = cell.row(self.role)
            paired = (cell.run.comparison or {}).get("paired")
            ready = bool(row and _summary(row, "test_accuracy"))
            reason = f": {cell.reason}" if cell.reason else ""
            rows.append(
                [
                    *(cell.values[k] for k in self.keys),
                    "★" if cell is self.best else "",
                    per_cent(_summary(row, "val_accuracy")) if ready else "–",
                    per_cent(_summary(row, "test_accuracy")) if ready else "–",
                    per_cent(paired["mean"], signed=True) if paired else "–",
                    f"[{per_cent(paired['low'], signed=True)}, {per_cent(paired['high'], signed=True)}]"
                    if paired and paired["low"] is not None
                    else "–",
                    f"{paired['p']:.3f}" if paired and paired["p"] is not None else "–",
                    f"{holm[cell.number]:.3f}" if cell.number in holm else "–",
                    f"{row['n']}" if row and ready else "–",
                    cell.status + reason,
                ]
            )
        for role in ("teacher", "baseline"):
            if role != self.role and role not in shared and any(c.row(role) for c in self.done):
                at = columns.index("val %")
                columns.insert(at, f"{role} %")
                lead = len(shared)
                for i, cells in enumerate(rows):
                    own = self.cells[i - lead].row(role) if i >= lead else None
                    cells.insert(at, per_cent(_summary(own, "test_accuracy")))
        return Table(columns, rows, self.verdict(), self._notes())

    def _holm(self) -> dict[int, float]:
        """Adjust the p-values of all cells but the one chosen on validation for their number."""
        others = {}
        for cell in self.done:
            paired = (cell.run.comparison or {}).get("paired")
            if cell is not self.best and paired and paired["p"] is not None:
                others[cell.number] = paired["p"]
        return dict(zip(others, statistics.holm(list(others.values())), strict=True))

    def verdict(self) -> str:
        """Say what the sweep shows: the cell chosen on validation, and how it did on test data."""
        partial = sum(cell.status != "done" for cell in self.cells)
        state = f"Partial: {partial} of {len(self.cells)} cells have no numbers. " if partial and len(self.done) < len(self.cells) else ""
        if self.best is None:
            return state + ("No cell is finished." if not self.done else "No validation data: no cell is chosen.")
        chosen = " ".join(f"{k}={v}" for k, v in self.best.values.items())
        val = per_cent(_summary(self.best.row(self.role), "val_accuracy"))
        said = (self.best.run.comparison or {}).get("verdict", "")
        return f"{state}Best of {len(self.done)} by validation: {chosen} ({val}%). {said}"

    def _notes(self) -> list[str]:
        notes = [f"★: chosen by mean validation accuracy among {len(self.cells)} trials; only that cell's test comparison is uncorrected"]
        others = len(self._holm())
        if others:
            need = statistics.seeds_needed(len(self.cells))
            notes.append(f"p Holm: corrected for the {others} other cells; with {len(self.cells)} cells, p < 0.05 needs at least {need} seeds")
        notes += self.at_edge()
        failed = [c for c in self.cells if c.status not in ("done", "running", "waiting")]
        if failed:
            notes.append(f"{len(failed)} cells failed; the same command runs only what is missing")
        return notes

    def data(self) -> dict[str, Any]:
        """Give sweep.json with its numbers."""
        cells = []
        for cell in self.cells:
            comparison = cell.run.comparison or {}
            numbers = {k: comparison.get(k) for k in ("rows", "paired", "verdict", "formula", "gap_closed")}
            cells.append({**self.record["cells"][cell.number], "status": cell.status, "reason": cell.reason, "swept": cell.values, **numbers})
        best = None if self.best is None else {"number": self.best.number, "swept": self.best.values}
        return {**self.record, "kind": "sweep", "cells": cells, "best": best, "at_edge": self.at_edge(), "table": self.table().to_json()}


def write_sweep(folder: Path) -> str:
    """Write sweep.{md,csv,json,tex,png,svg} into a sweep's folder, whatever state it is in; give the terminal's text."""
    from kdrun.results.plots import plot_sweep

    sweep = Sweep(folder)
    table = sweep.table()
    picture = plot_sweep(sweep, folder)
    shown = f"\n![accuracy over the sweep]({picture.name})\n" if picture else ""
    write_atomic(folder / "sweep.md", (table.to_markdown() + shown + f"\nMade by `{sweep.record['command']}`.\n").encode())
    write_atomic(folder / "sweep.csv", table.to_csv().encode())
    write_atomic(folder / "sweep.tex", table.to_latex().encode())
    write_atomic(folder / "sweep.json", (json.dumps(sweep.data(), indent=2) + "\n").encode())
    return table.to_text()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def series(sweep: Sweep, role: str, part: str) -> list[Summary | None]:
    """Give one summary per cell, for a picture."""
    return [_summary(cell.row(role), f"{part}_accuracy") for cell in sweep.cells]


def numeric_keys(sweep: Sweep) -> Sequence[str]:
    """Give the swept keys whose every value is a number."""
    return [k for k in sweep.keys if all(_number(c.values[k]) is not None for c in sweep.cells)]
