"""Write a sweep's table, picture and sweep.json into its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from kdrun.files import write_sealed
from kdrun.records import CellJson, Choice, SweepJson
from kdrun.results.plots.sweep import plot_sweep
from kdrun.results.points import write_points
from kdrun.results.statistics import as_json
from kdrun.results.sweep.effects import effects_table
from kdrun.results.sweep.sweep import Sweep, every_lane
from kdrun.results.sweep.table import sweep_table
from kdrun.results.tables import write_tables


def write_sweep(folder: Path, sweeps: Sequence[Sweep] | None = None) -> str:
    """Write sweep.{md,csv,json,tex,svg} and points.csv into a sweep's folder; return the text for the terminal.

    If several settings were swept, write effects.{md,csv,tex} too. `sweeps` is the folder's content, if it was read.
    """
    sweeps = sweeps or every_lane(folder)
    table = sweep_table(sweeps)
    picture = plot_sweep(sweeps, folder)
    shown = f"\n![accuracy over the sweep]({picture.name})\n" if picture else ""
    write_tables(folder, "sweep", table, shown)
    write_sealed(folder / "sweep.json", {**data(sweeps), "table": table.to_json()})
    write_points(folder, sweeps[0].runs)
    if (effects := effects_table(sweeps)) is not None:
        write_tables(folder, "effects", effects)
    return table.to_text("sweep.md has them")


def data(sweeps: Sequence[Sweep]) -> SweepJson:
    """Return the content of sweep.json without its table; choice and corrections are the first student's."""
    first = sweeps[0]
    swept = {cell.number: dict(cell.values) for sweep in sweeps for cell in sweep.cells}
    cells: list[CellJson] = []
    for run, recorded in zip(first.runs, first.record["cells"], strict=True):
        comparison = run.comparison or {}
        numbers = cast(CellJson, {k: comparison.get(k) for k in ("rows", "paired", "verdict", "formula", "gap_closed")})
        cells.append({**recorded, "status": run.status, "reason": run.reason, "swept": swept[recorded["number"]],
                      "p_holm": first.holm.get(recorded["number"]), **numbers})  # fmt: skip
    whole: SweepJson = {**first.record, "kind": "sweep", **_choice(first), "cells": cells}
    if len(sweeps) > 1:
        whole["lanes"] = [{"name": sweep.lane, **_choice(sweep), "p_holm": sweep.holm} for sweep in sweeps]
    return whole


def _choice(sweep: Sweep) -> Choice:
    best = None if sweep.best is None else {"number": sweep.best.number, "swept": dict(sweep.best.values)}
    return {"verdict": sweep.verdict(), "best": best, "at_edge": sweep.at_edge(), "best_p_holm": sweep.best_of_all,
            "luck": as_json(sweep.luck)}  # fmt: skip
