"""What the tests of results are given: artifact, run and sweep folders as training leaves them, made with numpy."""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from kdrun.files import file_sha256
from kdrun.results.collect import brief, collected, write_report
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.table import comparison_table
from kdrun.results.comparison.write import write_comparison
from kdrun.results.sweep.sweep import Sweep
from kdrun.results.sweep.table import sweep_table
from kdrun.sealed import seal
from kdrun.spec import Spec

# the names of the runs that the fixture `outputs` makes, and of its sweep
FIRST, SECOND = "2026-01-02_03-04-05-aaaaaa", "2026-01-02_03-04-09-bbbbbb"
SWEEP = "2026-01-03_10-00-00-5eeb01"

CLASSES = 4
LABELS = np.arange(100) % CLASSES
DIVERGED = {  # a result with every key, but for the spec's and the checksums
    "role": "student", "status": "diverged", "reason": "NaN", "dataset": "digits", "model": "mlp", "classes": ["0"],
    "protocol": "heldout", "parameters": 1, "bytes": 1, "epochs": 0, "selected": None, "last": None, "best_test": None,
    "seconds": 0.0, "images_per_second": 0.0, "train_images": 1, "formula": None, "teachers": [], "precision": "fp32",
    "device": "cpu", "threads": 1, "versions": {}, "created": "", "command": "",
}  # fmt: skip


def logits(right, *, of=LABELS, like=None):
    """Make (N, C) logits that are right on the first `right` of the samples, or on those of a boolean mask."""
    mask = np.arange(len(of)) < right if np.isscalar(right) else np.asarray(right)
    chosen = np.where(mask, of, (of + 1) % CLASSES)
    return (4.0 * np.eye(CLASSES)[chosen]).astype(np.float32)


def noisy(sure, seed):
    """Make (N, C) logits that are right the more often, the surer."""
    rng = np.random.default_rng(seed)
    return (sure * np.eye(CLASSES)[LABELS] + rng.normal(size=(len(LABELS), CLASSES))).astype(np.float32)


def point(epoch, train, val, test):
    """One epoch's numbers: accuracies of the three parts, None where there is none."""
    parts = {"train": train, "val": val, "test": test}
    return {"epoch": epoch} | {
        name: None if value is None else {"accuracy": value, "nll": round(1 - value, 4)}
        for name, value in parts.items()
    }


def artifact(
    store, role, seed=0, *, right=90, val=0.9, last=None, model=None, labels=LABELS, z=None, val_z=None, **more
):
    """Write one artifact's folder: right on `right` of the test images at the selected epoch, 27 of 30.

    `z` and `val_z` are logits on test and validation images to keep instead.
    """
    model = model or ("big" if role == "teacher" else "small")
    known = [role, right, val, str(more), *(str(made) for made in (z, val_z) if made is not None)]
    objective = {"made": hashlib.sha256(str(known).encode()).hexdigest()}
    spec = Spec({"digest": "d"}, {"use": model}, objective, {"lr": 0.01}, seed, "fp32", numerics=1)
    fingerprint = spec.fingerprint
    folder = Path(store) / f"{role}-digits-{model.strip('/')[:9]}-{fingerprint}"
    folder.mkdir(parents=True, exist_ok=True)
    z = logits(right, of=labels) if z is None else z
    val = val if val_z is None else float((val_z.argmax(1) == labels).mean())
    test = float((z.argmax(1) == labels).mean())
    selected = point(27, 0.99, val, test)
    then = point(30, 1.0, val, test if last is None else last)
    result = {
        "fingerprint": fingerprint, "role": role, "status": "done", "reason": None, "seed": seed, "dataset": "digits",
        "model": model, "classes": [f"class {c}" for c in range(CLASSES)], "protocol": "heldout", "parameters": 16842,
        "bytes": 70100, "epochs": 30, "selected": selected,
        "last": then, "best_test": None, "seconds": 12.3,
        "images_per_second": 4567.0, "train_images": 1293, "formula": f"CE of {role}", "teachers": [], "T": None,
        "alpha": None, "precision": "fp32", "device": "cpu", "threads": 1,
        "versions": {"kdrun": "0.1.0", "torch": "2.11.0", "python": "3.11.9"}, "created": "2026-01-02T03:04:05+00:00",
        "command": f"kdrun distill seed={seed}",
    } | more  # fmt: skip
    if result["status"] == "done":
        kept = {"test": z} if val_z is None else {"test": z, "val": val_z}
        kept |= {f"{part}_labels": labels.astype(np.int64) for part in list(kept)}
        save_file(kept, folder / "logits.safetensors")
    else:
        reason = (result["reason"] or "").replace("{role}", role).replace("{seed}", str(seed))
        result |= {"selected": None, "last": None, "reason": reason}
    (folder / "spec.json").write_text(spec.json())
    (folder / "result.json").write_bytes(seal({**result, "checksums": sums(folder)}))
    return folder


def sums(folder):
    """The checksums of an artifact's files."""
    return {file.name: file_sha256(file) for file in folder.iterdir() if file.name != "result.json"}


def history(folder, text):
    """Write an artifact's history."""
    (folder / "history.csv").write_text(text)
    changed(folder / "result.json", checksums=sums(folder))


def changed(file, **values):
    """Change values of a record and seal it again."""
    file.write_bytes(seal(json.loads(file.read_text()) | values))


def unsealed(file, **values):
    """Change values of a record and leave it without a seal, as version 1 wrote it."""
    whole = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in whole.items() if key not in ("schema", "checksum")}))


LOST = {
    "status": "diverged",
    "reason": "{role} small seed {seed}: epoch 1, batch 2: ce is nan; there was no good epoch",
}


def seeds_of(store, role, rights, **more):
    """Write an artifact for each seed, right on so many test images; None diverged."""
    known = [LOST if right is None else {"right": right} for right in rights]
    return [artifact(store, role, seed, **how, **more) for seed, how in enumerate(known)]


def record(
    folders, *, overrides=(), config=None, status="done", reason=None, created="2026-01-02T03:04:05+00:00",
    cast=(), **more,
):  # fmt: skip
    """Make the run.json of a run that used these artifacts; `cast` may give role, label and lane of each."""
    results = [json.loads((f / "result.json").read_text()) for f in folders]
    parts = [dict(zip(("role", "label", "lane"), part, strict=False)) for part in cast] or [{}] * len(folders)
    parts = parts[: len(folders)]
    return {
        "verb": "distill", "command": " ".join(["kdrun distill", *overrides]), "status": status, "reason": reason,
        "created": created, "kdrun": "0.1.0",
        "choices": {"dataset": "digits", "teacher": "big", "student": "small", "loss": ["kd"], "recipe": "quick"},
        "overrides": list(overrides), "config": config or {}, "formula": "0.1·CE + 0.9·KL",
        "artifacts": [{"role": r["role"], **p, "seed": r["seed"], "fingerprint": r["fingerprint"], "folder": f.name}
                      for r, f, p in zip(results, folders, parts, strict=True)],
    } | more  # fmt: skip


def trio(store, students, baselines, *, teacher=97, val=0.9, **more):
    """Write a teacher, and a baseline and a student per seed, right on so many test images; None diverged."""
    made = [artifact(store, "teacher", right=teacher)]
    for role, rights in (("baseline", baselines), ("student", students)):
        for seed, right in enumerate(rights):
            known = {"right": right} if right is not None else LOST
            made.append(artifact(store, role, seed, val=val, **known, **more))
    return made


def compare(folders, **more):
    """Compare networks from their folders."""
    return Comparison(folders, record(folders, **more))


def lane(comparison):
    """Return the only student's lane."""
    (only,) = comparison.lanes
    return only


def notes_of(comparison):
    """Return the notes below a comparison's table."""
    return "\n".join(comparison_table(comparison).notes)


def cells(comparison):
    """Return the rows of a comparison's table, by column."""
    table = comparison_table(comparison)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def column(comparison, name):
    """Return one column of a comparison's table."""
    return [row[name] for row in cells(comparison)]


def written(folder, folders, known):
    """Write a comparison and read its JSON."""
    write_comparison(folder, Comparison(folders, known))
    return json.loads((folder / "comparison.json").read_text())


def run(outputs, name, folders, *, sweep=None, **more):
    """Write a finished run's folder: run.json and comparison.*; a cell's where `sweep` is its sweep's folder."""
    folder = Path(sweep) / name if sweep else Path(outputs) / "runs" / "distill" / name
    folder.mkdir(parents=True)
    known = record(folders, **more)
    (folder / "run.json").write_bytes(seal(known))
    if folders:
        write_comparison(folder, Comparison(folders, known))
    return folder


def two_students(store, rights, *, val=None, baselines=(80, 81, 82), **more):
    """Write a teacher and two students, small and tiny, right on so many images; give folders and cast."""
    val = val or {"small": 0.9, "tiny": 0.9}
    folders, cast = [artifact(store, "teacher", right=97)], [("teacher", "teacher", "")]
    for lane, own in zip(("small", "tiny"), rights, strict=True):
        for role, counts in (("baseline", baselines[: len(own)]), ("student", own)):
            folders += seeds_of(store, role, counts, model=lane, val=val[lane] if role == "student" else 0.9, **more)
            cast += [(role, role, lane)] * len(own)
    return folders, cast


def sweep(outputs, cells, *, status="done", name="2026-01-03_10-00-00-5eeb01", **more):
    """Write a sweep's folder; `cells` are (typed overrides, artifact folders, or how it ended without any)."""
    folder = Path(outputs) / "sweeps" / "distill" / name
    folder.mkdir(parents=True)
    lines = []
    for number, (typed, came) in enumerate(cells):
        ended, reason = ("done", None) if isinstance(came, list) else came
        if ended != "waiting":
            folders = came if isinstance(came, list) else []
            run(outputs, str(number), folders, sweep=folder, overrides=typed, status=ended, reason=reason, **more)
        lines.append({"number": number, "overrides": typed, "status": ended, "reason": reason})
    whole = {"verb": "distill", "command": "kdrun distill -m", "created": "2026-01-03T10:00:00+00:00", "status": status,
             "overrides": [], "cells": lines}  # fmt: skip
    (folder / "sweep.json").write_bytes(seal(whole))
    return folder


def reported(paths, outputs, target):
    """Write the report of what words mean, and give the terminal's text."""
    return brief(write_report(collected(paths, outputs), target)).to_text()


def sweep_rows(folder):
    """Return the rows of a sweep's table, by column."""
    sweep = sweep_table([Sweep(folder)])
    return [dict(zip(sweep.columns, row, strict=True)) for row in sweep.rows]
