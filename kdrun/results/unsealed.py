"""A comparison.json of version 1, without a checksum: trusted if its statistics follow from its own points.

Its verdict and its table are text, and are trusted without this check.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from kdrun.records import ComparisonJson, LaneJson, PointJson, RowJson
from kdrun.results import statistics
from kdrun.results.statistics import as_json

ROUNDING = 1e-9


def disagreements(comparison: ComparisonJson) -> Iterator[str]:
    """Yield the names of a comparison's statistics that do not follow from its points."""
    for number, row in enumerate(comparison["rows"]):
        finished = _finished(row)
        if (row["n"], row["asked"]) != (len(finished), len(row["points"])):
            yield f"rows[{number}].n"
        for part, key in product(("train", "val", "test"), ("accuracy", "nll")):
            values = [_of(point, part, key) for point in finished]
            recorded: Any = row.get(f"{part}_{key}")
            if f"{part}_{key}" in row and not _alike(recorded, as_json(statistics.summary(values))):
                yield f"rows[{number}].{part}_{key}"
    table = comparison.get("table")
    if table and any(set(table["columns"]) - row.keys() for row in table["rows"]):
        yield "table"
    first = comparison.get("paired")
    lanes = comparison.get("lanes") or [LaneJson(name="", paired=first)]
    if first != lanes[0]["paired"]:
        yield "paired"
    for lane in lanes:
        own = [row for row in comparison["rows"] if row.get("lane", "") == lane["name"]]
        if not _alike(lane["paired"], _paired(own)):
            yield f"paired of {lane['name'] or 'the student'}"


def _paired(rows: Sequence[RowJson]) -> Any:
    """Return the paired difference of a lane's student and baseline; without p if they are the same trainings.

    The oldest files have a p for these.
    """
    rows = [next((row for row in rows if row["role"] == role), RowJson(points=[])) for role in ("student", "baseline")]
    student, baseline = ({p["seed"]: _of(p, "test", "accuracy") for p in _finished(row)} for row in rows)
    paired = as_json(statistics.pair_by_seed(student, baseline))
    same = len({tuple(point["fingerprint"] for point in row["points"]) for row in rows}) == 1
    return {key: value for key, value in paired.items() if key != "p"} if paired and same else paired


def _finished(row: RowJson) -> Sequence[PointJson]:
    return [point for point in row["points"] if point["status"] == "done"]


def _of(point: PointJson, part: str, key: str) -> float:
    selected: Any = point.get("selected") or {}
    measured = selected.get(part)
    return math.nan if measured is None else float(measured[key])


def _alike(recorded: Mapping[str, Any] | None, expected: Mapping[str, Any] | None) -> bool:
    """Return whether two statistics have the same numbers, but for rounding."""
    if recorded is None or expected is None:
        return recorded is expected
    pairs = [(recorded.get(key), value) for key, value in expected.items()]
    return all(
        a is b if a is None or b is None else math.isclose(a, b, rel_tol=ROUNDING, abs_tol=ROUNDING) for a, b in pairs
    )
