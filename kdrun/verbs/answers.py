"""kdrun answers: write a trained network's logits for the training images to a file for teacher=answers."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kdrun import console
from kdrun.artifact import Artifact
from kdrun.checks import no_room, typed_folder, typed_path
from kdrun.command.listings import DEFAULT_OUTPUTS, Words
from kdrun.data import answer_files
from kdrun.data.sets import Dataset
from kdrun.export.choose import ROLE, choose
from kdrun.files import RunFailed, write_atomic
from kdrun.lifecycle.dataset import dataset_of
from kdrun.results.find import stored
from kdrun.results.runs import Run
from kdrun.signals import StopFlag
from kdrun.training import devices
from kdrun.training.answering import answer
from kdrun.training.networks import load_model

KEYS = ("role", "seed", "to", "device", "batch_size", "outputs", "dataset.root", "dataset.file")


def main(rest: Sequence[str]) -> None:
    """Write a network's logits for all training images, including those held out for validation, unaugmented."""
    args = _words(rest)
    outputs = typed_folder(args.outputs, "outputs=")
    place = _target(args.to)
    choice = choose(args.run, args.role or (ROLE if stored(args.run, outputs) else "teacher"), args.seed, outputs)
    if choice.run is None:
        raise ValueError(f"{choice.fingerprint}: no run here uses it, so its data are unknown; name its run")
    artifact = choice.artifact(outputs)
    if artifact.spec.answered:
        raise ValueError(f"{args.run}: its {choice.role} is a file of answers itself, not a network; use that file")
    with console.busy("reading the training images"):
        moved = {"root": getattr(args, "dataset.root"), "file": getattr(args, "dataset.file")}
        dataset = dataset_of(choice.run, moved, whole=True)
    if dataset.digest != artifact.spec.data["digest"]:
        raise ValueError(
            f"{dataset.name} is not what {choice.run.name} was trained on, or has changed since; type dataset.root=DIR "
            "(of a table: dataset.file=FILE) for the original data"
        )
    device = devices.resolve_device(args.device)
    size = args.batch_size or _batch_size(choice.run, artifact)
    with StopFlag() as stop:
        network = load_model(artifact, device).eval()
        logits = answer(network, dataset.train, artifact.spec, device, stop, batch_size=size)
    if not bool(torch.isfinite(logits).all()):
        raise RunFailed(f"{args.run}: some of the network's logits are not finite; nothing was written")
    title = f"{choice.role} {artifact.result['model']} (seed {artifact.spec.seed}, {artifact.fingerprint})"
    file = _file(dataset, logits.numpy(), artifact, title)
    with console.busy(f"writing {place}"):
        write_atomic(place, answer_files.content(file, answer_files.ending(place, f"--to {place}")))
    right = int((logits.argmax(1) == dataset.train.labels.cpu()).sum())
    named = "name and index" if dataset.names else "index"
    print(
        f"{title}; {choice.reason}\n"
        f"{len(logits):,} training images of {dataset.name}, not augmented, identified by {named}; {right:,} answers "
        f"are right; batches of {size} on {device}"
    )
    if place.suffix.lower() == ".csv":
        print("a .csv does not record its data set and network, so kdrun cannot check them; the other formats do")
    print(f"answers: {place}\nto learn from them: kdrun distill teacher=answers teacher.file={place}")


def _words(rest: Sequence[str]) -> Namespace:
    parser = Words(prog="answers", add_help=False)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--to")
    parser.add_argument("--role")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--batch_size", "--batch-size", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dataset.root")
    parser.add_argument("--dataset.file")
    parser.add_argument("--outputs", default=DEFAULT_OUTPUTS)
    # the other verbs take KEY=VALUE, so accept that as well
    keys = "|".join(map(re.escape, KEYS))
    args = parser.parse_intermixed_args([f"--{word}" if re.match(f"({keys})=", word) else word for word in rest])
    if args.run is None:
        raise ValueError("answers: which run? Type kdrun answers RUN --to FILE (kdrun runs lists them), or latest")
    if args.to is None:
        raise ValueError("answers: to which file? Type --to FILE, a .safetensors, .npz, .csv or .parquet file")
    if args.batch_size is not None and args.batch_size < 1:
        raise ValueError(f"answers: --batch_size {args.batch_size}: must be at least 1")
    return args


def _target(typed: str) -> Path:
    """Return the file to write. Raise ValueError if it exists, or cannot be written."""
    place = typed_path(typed, "--to ")
    answer_files.ending(place, f"--to {typed}")
    if place.exists():
        raise ValueError(f"--to {typed}: exists already; name another file, or remove it")
    if why := no_room(place.absolute().parent):
        raise ValueError(f"--to {typed}: {why}")
    return place


def _batch_size(run: Run, artifact: Artifact) -> int:
    """Return the students' batch size: in batches of that size, logits equal those of a training bit for bit."""
    recipe = run.config.get("recipe") or artifact.spec.recipe
    return int(recipe.get("batch_size", 64))


def _file(dataset: Dataset, logits: np.ndarray, artifact: Artifact, title: str) -> answer_files.AnswerFile:
    about = {
        "version": answer_files.VERSION,
        "dataset": dataset.name,
        "data": dataset.digest,
        "network": title,
        "split": {key: artifact.spec.data[key] for key in ("val_fraction", "split_seed")},
        "spec": artifact.spec.json(),
    }
    return answer_files.AnswerFile(
        "logits", logits, dataset.classes, dataset.names or None, np.arange(dataset.stored), about
    )
