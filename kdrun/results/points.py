"""points.csv: every network's numbers, one per row, for the user's own figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdrun.files import write_atomic
from kdrun.records import PointJson, RowJson
from kdrun.results.runs import Run

COLUMNS = ("run", "cell", "role", "lane", "name", "dataset", "model", "loss", "T", "alpha", "seed", "fingerprint",
           "at", "epoch", "split", "measure", "value")  # fmt: skip
PARTS = ("train", "val", "test")
ASIDE = ("outputs", "plan", "force", "workers", "data_timeout", "checkpoint_every", "reported", "verbose", "quiet",
         "report", "tracker", "columns", "examples", "seeds")  # settings that do not tell networks apart  # fmt: skip
Line = dict[str, Any]


def write_points(folder: Path, runs: Sequence[Run]) -> None:
    """Write the numbers of all finished networks of some runs, as their comparison.json has them.

    Settings that were typed differently for these runs have a column each.
    """
    typed = [_typed(run) for run in runs if run.comparison is not None]
    differing = [key for key in dict.fromkeys(key for one in typed for key in one)
                 if len({one.get(key) for one in typed}) > 1]  # fmt: skip
    place = COLUMNS.index("seed")
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS[:place], *differing, *COLUMNS[place:]], restval="", lineterminator="\n")
    writer.writeheader()
    for run in runs:
        own = {key: value for key, value in _typed(run).items() if key in differing}
        writer.writerows(own | line for line in _of_run(run))
    write_atomic(folder / "points.csv", text.getvalue().encode())


def _typed(run: Run) -> dict[str, str]:
    """Return the settings that were typed, without those that are columns already."""
    words = [word.partition("=") for word in map(str, run.record.get("overrides") or []) if "=" in word]
    return {key: value for key, _, value in words if key not in (*COLUMNS, *ASIDE) and not key.startswith("hydra")}


def _of_run(run: Run) -> Iterator[Line]:
    name, _, cell = run.name.rpartition("/")
    where = {"run": name or run.name, "cell": cell if name else ""}
    for row in run.comparison["rows"] if run.comparison else ():
        for point in row["points"]:
            if point["status"] == "done":
                yield from _of_network(where, run, row, point)


def _of_network(where: Line, run: Run, row: RowJson, point: PointJson) -> Iterator[Line]:
    about = where | {
        "role": row["role"],
        "lane": row.get("lane", ""),
        "name": row.get("name") or row["role"],
        "dataset": row.get("dataset", ""),
        "model": row["model"],
        **_loss(run, row, point),
        "seed": point["seed"],
        "fingerprint": point["fingerprint"],
    }
    for at, epoch in (("selected", point.get("selected")), ("last", point.get("last"))):
        measured: Mapping[str, Any] = epoch or {}
        for part in PARTS:
            for measure, value in (measured.get(part) or {}).items():
                yield about | {"at": at, "epoch": measured["epoch"], "split": part, "measure": measure, "value": value}
    chosen: Mapping[str, Any] = point.get("selected") or {}
    for measure, value in (point.get("measures") or {}).items():
        if measure != "test_nll":  # yielded above
            yield about | {"at": "selected", "epoch": chosen.get("epoch", ""), "split": SPLIT.get(measure, "test"),
                           "measure": measure, "value": value}  # fmt: skip


SPLIT = {key: "val" for key in ("epochs_to_90", "epochs_to_95", "epochs_to_99", "unsteadiness")}  # of validation curves


def _loss(run: Run, row: RowJson, point: PointJson) -> Line:
    """Return a network's loss, with T and alpha if the loss reads them.

    Older files do not name the loss: then it is the run's, with T if the formula has it and alpha if the run's loss is
    weighed by it.
    """
    read = {key: "" if point.get(key) is None else point[key] for key in ("T", "alpha")}
    if "loss" in point and point["loss"] is not None:
        return {"loss": point["loss"], **read}
    formula = str(point.get("formula") or "")
    if row["role"] in ("teacher", "baseline") or not formula:
        return {"loss": "" if row["role"] == "ensemble" else "ce", "T": "", "alpha": ""}
    by_alpha = any(node.get("weighed_by") == "alpha" for node in (run.config.get("loss") or {}).values())
    return {
        "loss": run.choice("loss"),
        "T": read["T"] if "T=" in formula else "",
        "alpha": read["alpha"] if by_alpha else "",
    }
