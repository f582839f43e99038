"""Check a result.json of version 1, which has no checksum, against the other files of its artifact.

Those files are covered by its `checksums`. There is no way to check the classes' names, parameters, device, versions,
command, accuracies on training data, and accuracies on test data at the last epoch.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdrun.records import Accuracy, ResultJson
from kdrun.spec import Spec

ROUNDING = 1e-6
MEASURED_AGAIN = 0.02  # an epoch's accuracy was measured twice, in batches of other shapes


def disagreements(folder: Path, result: ResultJson, spec: Spec) -> Iterator[str]:
    """Yield the keys in which a result contradicts its artifact's other files, which match its checksums."""
    recipe = spec.recipe
    expected: dict[str, Any] = {
        "seed": spec.seed, "precision": spec.precision, "teachers": list(spec.teachers), "compiled": spec.compiled,
        "data": spec.data.get("digest"), "protocol": recipe.get("protocol", "heldout"),
        "select": recipe.get("select", "accuracy"), "ema_decay": recipe.get("ema_decay"),
    }  # fmt: skip
    rows = _history(folder)
    seconds = sum(row["seconds"] for row in rows)
    images = result["train_images"] * len(rows)
    expected |= {"epochs": len(rows), "seconds": round(seconds, 3)}
    expected["images_per_second"] = round(images / seconds, 1) if seconds else 0.0
    weights = folder / "model.safetensors"
    expected["bytes"] = weights.stat().st_size if weights.exists() else 0
    yield from (key for key, value in expected.items() if result.get(key, value) != value)
    if (result["status"] == "done") != weights.exists():
        yield "status"
    elif weights.exists():
        yield from _points(folder, result, rows)
    elif result["selected"] or result["last"] or result["best_test"]:
        yield "selected"


def _points(folder: Path, result: ResultJson, rows: list[dict[str, float]]) -> Iterator[str]:
    """Yield which accuracies and losses differ from those of the stored logits and the history."""
    selected, last = result["selected"], result["last"]
    if selected is None or last is None:
        yield "selected"
        return
    measured = _of_logits(folder, len(result["classes"]))
    yield from (f"selected.{part}" for part in ("val", "test") if not _alike(selected[part], measured.get(part)))
    if last["epoch"] != len(rows) or not min(1, len(rows)) <= selected["epoch"] <= last["epoch"]:
        yield "last.epoch"
        return
    if selected["epoch"] == last["epoch"] and selected != last:
        yield "last"
    for name, point in (("selected", selected), ("last", last)):
        then = rows[point["epoch"] - 1].get("val_accuracy") if rows else None
        if then is not None and (point["val"] is None or abs(point["val"]["accuracy"] - then) > MEASURED_AGAIN):
            yield f"{name}.epoch"
    best = None
    if result["protocol"] == "paper" and rows:
        row = max(rows, key=lambda row: row["test_accuracy"])
        best = {"epoch": row["epoch"], "test": {"accuracy": row["test_accuracy"], "nll": row["test_nll"]}}
    if result["best_test"] != best:
        yield "best_test"


def _of_logits(folder: Path, classes: int) -> dict[str, Accuracy]:
    """Return accuracy and loss on the parts whose logits and labels are stored, computed with NumPy."""
    import numpy as np
    from safetensors.numpy import load_file

    stored = load_file(folder / "logits.safetensors")
    measured: dict[str, Accuracy] = {}
    for part in ("val", "test"):
        if part not in stored:
            continue
        known = stored[f"{part}_labels"] >= 0
        z, labels = stored[part][known].astype(np.float64), stored[f"{part}_labels"][known]
        if z.shape[1] != classes:
            raise ValueError(f"it has {classes} classes, and its logits {z.shape[1]}")
        if len(labels):
            largest = z.max(axis=1)
            nll = np.log(np.exp(z - largest[:, None]).sum(axis=1)) + largest - z[np.arange(len(z)), labels]
            accuracy = float((z.argmax(axis=1) == labels).mean())
            measured[part] = {"accuracy": accuracy, "nll": float(nll.mean())}
    return measured


def _history(folder: Path) -> list[dict[str, float]]:
    """Return history.csv by row; empty for weights from a file, which have none."""
    path = folder / "history.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _alike(recorded: Accuracy | None, measured: Accuracy | None) -> bool:
    if recorded is None or measured is None:
        return recorded is measured
    return all(abs(recorded[key] - measured[key]) <= ROUNDING * max(1.0, measured[key]) for key in ("accuracy", "nll"))
