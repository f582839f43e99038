"""What the tests of results are given: artifact, run and sweep folders as training leaves them, made with numpy."""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from kdrun.results.comparison import write_comparison

CLASSES = 4
LABELS = np.arange(100) % CLASSES


def logits(right, *, of=LABELS, like=None):
    """Make (N, C) logits that are right on the first `right` of the samples, or on those of a boolean mask."""
    mask = np.arange(len(of)) < right if np.isscalar(right) else np.asarray(right)
    chosen = np.where(mask, of, (of + 1) % CLASSES)
    return (4.0 * np.eye(CLASSES)[chosen]).astype(np.float32)


def point(epoch, train, val, test):
    """One epoch's numbers: accuracies of the three parts, None where there is none."""
    parts = {"train": train, "val": val, "test": test}
    return {"epoch": epoch} | {
        name: None if value is None else {"accuracy": value, "nll": round(1 - value, 4)}
        for name, value in parts.items()
    }


def artifact(store, role, seed=0, *, right=90, val=0.9, last=None, model=None, labels=LABELS, **more):
    """Write one artifact's folder: right on `right` of the test images at the selected epoch, 27 of 30."""
    model = model or ("big" if role == "teacher" else "small")
    known = json.dumps([role, seed, model, right, str(more)])
    fingerprint = more.pop("fingerprint", hashlib.sha256(known.encode()).hexdigest()[:12])
    folder = Path(store) / f"{role}-digits-{model.strip('/')[:9]}-{fingerprint}"
    folder.mkdir(parents=True, exist_ok=True)
    z = logits(right, of=labels)
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
        save_file({"test": z, "test_labels": labels.astype(np.int64)}, folder / "logits.safetensors")
    else:
        reason = (result["reason"] or "").replace("{role}", role).replace("{seed}", str(seed))
        result |= {"selected": None, "last": None, "reason": reason}
    (folder / "result.json").write_text(json.dumps(result))
    spec = {"data": {"digest": "d"}, "model": {"use": model}, "objective": {}, "recipe": {"lr": 0.01}, "seed": seed,
            "precision": "fp32", "teachers": [], "numerics": 1}  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


LOST = {
    "status": "diverged",
    "reason": "{role} small seed {seed}: epoch 1, batch 2: ce is nan; there was no good epoch",
}


def record(folders, *, overrides=(), config=None, status="done", reason=None, created="2026-01-02T03:04:05+00:00"):
    """Make the run.json of a run that used these artifacts."""
    results = [json.loads((f / "result.json").read_text()) for f in folders]
    return {
        "verb": "distill", "command": " ".join(["kdrun distill", *overrides]), "status": status, "reason": reason,
        "created": created, "kdrun": "0.1.0",
        "choices": {"dataset": "digits", "teacher": "big", "student": "small", "loss": ["kd"], "recipe": "quick"},
        "overrides": list(overrides), "config": config or {}, "formula": "0.1·CE + 0.9·KL",
        "artifacts": [{"role": r["role"], "seed": r["seed"], "fingerprint": r["fingerprint"], "folder": f.name}
                      for r, f in zip(results, folders, strict=True)],
    }  # fmt: skip


def trio(store, students, baselines, *, teacher=97, val=0.9, **more):
    """Write a teacher, and a baseline and a student per seed, right on so many test images; None diverged."""
    made = [artifact(store, "teacher", right=teacher)]
    for role, rights in (("baseline", baselines), ("student", students)):
        for seed, right in enumerate(rights):
            known = {"right": right} if right is not None else LOST
            made.append(artifact(store, role, seed, val=val, **known, **more))
    return made


def run(outputs, name, folders, *, sweep=None, **more):
    """Write a finished run's folder: run.json and comparison.*; a cell's where `sweep` is its sweep's folder."""
    folder = Path(sweep) / name if sweep else Path(outputs) / "runs" / "distill" / name
    folder.mkdir(parents=True)
    known = record(folders, **more)
    (folder / "run.json").write_text(json.dumps(known))
    if folders:
        write_comparison(folder, folders, known)
    return folder


def sweep(outputs, cells, *, status="done", name="2026-01-03_10-00-00-5eeb01", **more):
    """Write a sweep's folder; `cells` are (typed overrides, artifact folders, or how it ended without any)."""
    folder = Path(outputs) / "sweeps" / "distill" / name
    folder.mkdir(parents=True)
    told = []
    for number, (typed, came) in enumerate(cells):
        ended, reason = ("done", None) if isinstance(came, list) else came
        if ended != "waiting":
            folders = came if isinstance(came, list) else []
            run(outputs, str(number), folders, sweep=folder, overrides=typed, status=ended, reason=reason, **more)
        told.append({"number": number, "overrides": typed, "status": ended, "reason": reason})
    whole = {"verb": "distill", "command": "kdrun distill -m", "created": "2026-01-03T10:00:00+00:00", "status": status,
             "overrides": [], "cells": told}  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(whole))
    return folder
