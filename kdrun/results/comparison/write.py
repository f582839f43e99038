"""Write a comparison into its run's folder: every table, and comparison.json with all numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

from kdrun.files import write_sealed
from kdrun.records import ComparisonJson, LaneJson, RowJson
from kdrun.results.comparison.classes import class_table
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.measures import MEASURES
from kdrun.results.comparison.measures_tables import measure_tables
from kdrun.results.comparison.missing import missing_table
from kdrun.results.comparison.reported import reported
from kdrun.results.comparison.table import comparison_table
from kdrun.results.networks import Row
from kdrun.results.points import write_points
from kdrun.results.runs import Run, name_of
from kdrun.results.statistics import Paired, Summary, as_json
from kdrun.results.tables import write_tables
from kdrun.spec import finite


def write_comparison(folder: Path, comparison: Comparison, *, shown: bool = True) -> str:
    """Write a run's tables into its folder, and return the text for the terminal if it is shown there.

    The files are comparison.{md,csv,json,tex}, points.csv, measures.*, differences.*, classes.* and, if classes were
    left out of the transfer set, missing.*, which is shown on the terminal too.
    """
    table = comparison_table(comparison)
    write_tables(folder, "comparison", table)
    beyond = zip(("measures", "differences"), measure_tables(comparison), strict=False)
    missing = missing_table(comparison)
    for name, other in (*beyond, ("classes", class_table(comparison)), ("missing", missing)):
        if other is not None:
            write_tables(folder, name, other)
    content = finite({**data(comparison), "table": table.to_json()})
    write_sealed(folder / "comparison.json", content)
    write_points(folder, [Run(name_of(folder), folder, comparison.record, content)])
    named = {"comparison.md": table, "missing.md": missing} if shown else {}
    return "\n\n".join(one.to_text(f"{name} has them") for name, one in named.items() if one is not None)


def data(comparison: Comparison) -> ComparisonJson:
    """Return the content of comparison.json without its table. Statistics outside of `lanes` are the first lane's."""
    record = comparison.record
    lanes: list[LaneJson] = [
        {**lane.data(), "measures": {m.key: as_json(comparison.measured_difference(lane, m.key)) for m in MEASURES}}
        for lane in comparison.lanes
        if lane.student is not None
    ]
    first: LaneJson = lanes[0] if lanes else {}
    content = {
        "kind": "comparison",
        "verdict": comparison.verdict(),
        "formula": record.get("formula"),
        "rows": [_row_data(comparison, row) for row in comparison.rows],
        **{key: first.get(key) for key in ("paired", "single_run", "gap_closed")},
        "lanes": lanes,
        **{key: record.get(key) for key in ("verb", "command", "created", "overrides", "choices")},
    }
    return cast(ComparisonJson, content)


def _row_data(comparison: Comparison, row: Row) -> RowJson:
    lane = comparison.lane(row)
    numbers: dict[str, Summary | Paired | None] = {
        **{f"{part}_accuracy": row.summary(part) for part in ("train", "val", "test")},
        **{f"{part}_nll": row.summary(part, "nll") for part in ("train", "val", "test")},
        **{f"last_{part}_accuracy": row.summary(part, epoch="last") for part in ("train", "val", "test")},
        **{m.key: comparison.measured(row, m.key) for m in MEASURES},
        "paired": lane.difference(row) if lane and row is not lane.baseline else None,
    }
    data = {
        "role": row.role,
        "label": row.label,
        "lane": row.lane,
        "name": comparison.names[row],
        "ensemble_of": row.of or None,
        "model": row.model,
        "dataset": row.networks[0].result["dataset"],
        "n": len(row.finished),
        "asked": len(row.networks),
        **{key: as_json(value) for key, value in numbers.items()},
        "gap_closed": lane.gap_closed(row) if lane and row is not lane.baseline else None,
        "reported": [vars(one) for one in reported(comparison).get(row, ())],
        "points": [{**m.data(), "measures": _measures(comparison, row, m.seed)} for m in row.networks],
    }
    return cast(RowJson, data)


def _measures(comparison: Comparison, row: Row, seed: int) -> dict[str, float]:
    """Return one network's measures beyond accuracy, without those that are not finite."""
    known = {m.key: comparison.points(row, m.key).get(seed, math.nan) for m in MEASURES}
    return {key: float(value) for key, value in known.items() if math.isfinite(value)}
