"""Every method that kdrun has, trained on the same images with the same seeds: what each gains, and what it costs.

    python benchmarks/methods.py [SETTING=VALUE …] [--methods NAME …] [--outputs DIR] [--json FILE]
                                 [--write FILE [--table NAME]]

Settings are those of `kdrun distill`; the defaults below suit a CPU: 3% of Fashion-MNIST for the student, and
a teacher trained on all of it. On a GPU, `experiment=cifar100/resnet32x4_resnet8x4` gives the table of the
papers. All students of one seed train as one cohort, and everything goes through the store, so that the same
command resumes where it was stopped. Methods have their papers' defaults; nothing is tuned here.

Steps are timed separately from the trainings, one method after the other within a round, the teacher's forward
pass included; ratios are taken within a round, and their medians over rounds are printed. Run it on a machine
with nothing else to do. `--write FILE` puts the table between the marks `<!-- NAME: begin -->` and
`<!-- NAME: end -->` of the file. Methods that kdrun refuses with the settings, for example some with mixed images,
are named below the table.
"""

import argparse
import json
import logging
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kdrun import augment
from kdrun.artifact import Artifact
from kdrun.command import groups
from kdrun.command.invocation import Invocation
from kdrun.config import CONF
from kdrun.console import count
from kdrun.data.batches import Batches
from kdrun.evaluation.accuracy import correct
from kdrun.plan.requests import RequestBuilder, new_obtainer
from kdrun.plan.waves import Entry, waves
from kdrun.results import statistics as evidence
from kdrun.results.networks import StoredNetwork
from kdrun.results.tables import Table, interval, per_cent
from kdrun.signals import StopFlag
from kdrun.training import devices
from kdrun.training.cohort import new_unit
from kdrun.training.obtain import Obtainer
from kdrun.training.teaching import Teaching

DEFAULTS = [
    "dataset=fashion_mnist",
    "dataset.val_fraction=0.02",  # 1,200 images: enough to choose an epoch, and evaluation is not half of the work
    "transfer.fraction=0.03",
    "recipe.epochs=24",
    "recipe.batch_size=64",
    "student.widths=[8,16,32]",
    "teacher.recipe.epochs=3",
    "seeds=3",
    "precision=auto",
]
MORE = {  # what a method needs beside loss=NAME, where that is not enough
    "ca_mkd": ["teachers=[{teacher},{student}]"],  # also the small network, trained on all images
    "sem_ckd": ["loss=sem_ckd", "loss.sem_ckd.widening=0.25"],  # as published its projections cost 40 times a step
    "kd+crd": ["loss=[kd,crd]", "loss.kd.weight=1"],
}
ROUNDS, STEPS = 5, 8


def configuration(name: str, settings: list[str]) -> DictConfig:
    """Compose `kdrun distill loss=NAME` with the settings."""
    words = [*settings, f"loss={name}"] if name not in MORE or name == "ca_mkd" else list(settings)
    if name in MORE:
        chosen = compose("distill", settings, return_hydra_config=True).hydra.runtime.choices
        words += [word.format(teacher=chosen.teacher, student=chosen.student) for word in MORE[name]]
    cfg = compose("distill", words, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def lineups(
    names: list[str], settings: list[str], obtainer: Obtainer
) -> tuple[dict[str, list[list[Entry]]], dict[str, str]]:
    """Return every method's trainings, and why kdrun refuses the other methods; the data are read once."""
    found, refused = {}, {}
    for name in names:
        cfg = configuration(name, settings)
        try:
            builder = RequestBuilder.read("distill", cfg, cfg.hydra.runtime.choices, obtainer.device)
            found[name] = waves(builder, obtainer.store)
        except ValueError as error:
            refused[name] = str(error)
    if not found:
        raise SystemExit("no method can train:\n" + "\n".join(dict.fromkeys(refused.values())))
    return found, refused


def obtained(cast: dict[str, list[list[Entry]]], obtainer: Obtainer) -> dict[str, list[tuple[Entry, Artifact]]]:
    """Train what is missing: teachers first, then the students of all methods, which share batches and teacher."""
    for wave in range(max(len(found) for found in cast.values())):
        requests = [e.request for found in cast.values() if wave < len(found) for e in found[wave] if e.request]
        obtainer.expect(requests)
        obtainer.obtain(requests)
    ready = {}
    for name, found in cast.items():
        entries = [entry for wave in found for entry in wave]
        ready[name] = [(e, a) for e in entries if (a := obtainer.store.find(e.spec.fingerprint)) is not None]
    return ready


def gain(found: list[tuple[Entry, Artifact]]) -> dict[str, Any]:
    """Compare students and baselines of the same seed on the test images; average over peers (mutual learning)."""
    points = {
        role: {(e.lane, a.spec.seed): _test(a) for e, a in found if e.role == role and a.finished}
        for role in ("baseline", "student")
    }
    pairs = [key for key in points["student"] if key in points["baseline"]]
    seeds = dict.fromkeys(seed for _, seed in pairs)
    test = {
        role: [statistics.mean(own[key] for key in pairs if key[1] == seed) for seed in seeds]
        for role, own in points.items()
    }
    differences = [s - b for s, b in zip(test["student"], test["baseline"], strict=True)]
    student = next(a for e, a in found if e.role == "student")
    return {
        "baseline": vars(evidence.summary(test["baseline"]) or evidence.Summary(float("nan"), None, 0)),
        "student": vars(evidence.summary(test["student"]) or evidence.Summary(float("nan"), None, 0)),
        "paired": vars(p) if (p := evidence.paired(differences)) else None,
        "formula": student.result["formula"],
        "asked": len({a.spec.seed for e, a in found if e.role == "student"}),
    }


def _test(artifact: Artifact) -> float:
    network = StoredNetwork.read(artifact.folder)
    return float(correct(network.logits(), network.labels()).mean())


def step_seconds(name: str, cast: list[list[Entry]], obtainer: Obtainer) -> "Step":
    """Prepare to time a method's steps as they are in the training of its first seed."""
    small = [entry.request for entry in cast[-1] if entry.request is not None and entry.role == "student"]
    group = [r for r in small if r.spec.seed == small[0].spec.seed]
    return Step(name, group, obtainer)


class Step:
    """One method's training step, teachers' forward included, on batches that repeat."""

    def __init__(self, name: str, group: list[Any], obtainer: Obtainer) -> None:
        spec = group[0].spec
        teachers, self.strong = obtainer.trainer.teachers(spec.teachers), group[0].strong
        size = group[0].sets.train.image_size
        self.batches = Batches(
            group[0].sets.train,
            batch_size=spec.recipe["batch_size"],
            seed=spec.seed,
            augmentation=augment.of_spec(spec.data, size),
            strong=augment.strong_of_spec(spec.data, self.strong, size),
            mean=spec.data["mean"],
            std=spec.data["std"],
            device=obtainer.device,
        )
        self.unit = new_unit(group, teachers, 10**4, obtainer.device)
        self.teaching = Teaching(teachers, self.batches, precision=spec.precision, device=obtainer.device)
        self.device, self.students = obtainer.device, len(group)

    def seconds(self) -> float:
        """Return the seconds per step and student, over some steps."""
        batches = [b for b, _ in zip(self.batches.epoch(0), range(STEPS), strict=False)]
        self._wait()
        started = time.perf_counter()
        for batch in batches:
            self.unit.step(batch, self.teaching.teacher_outputs(batch, 0, logits_only=False, strong=bool(self.strong)))
        self._wait()
        return (time.perf_counter() - started) / len(batches) / self.students

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", nargs="*", help="settings of kdrun distill")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--outputs", default="outputs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--table", default="the table", help="name of the marks in the file of --write")
    args = parser.parse_args()
    if args.write and not all(mark in args.write.read_text() for mark in marks(args)):
        parser.error(f"{args.write} lacks {' or '.join(marks(args))}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    dirs = groups.user_dirs()
    groups.register(dirs)
    names = args.methods or [*groups.options("loss", dirs), "kd+crd"]
    settings = [*DEFAULTS, *args.settings, f"outputs={args.outputs}"]
    with initialize_config_dir(str(CONF), version_base="1.3"), StopFlag() as stop:
        command = "python benchmarks/methods.py " + shlex.join(sys.argv[1:])
        cfg = configuration("kd", settings)
        obtainer = new_obtainer(Invocation("distill", command), cfg, Path(str(cfg.hydra.sweep.dir)), stop)
        cast, refused = lineups(names, settings, obtainer)
        found = obtained(cast, obtainer)
        rows = {name: gain(found[name]) for name in cast}
        costs = measured({name: cast[name] for name in dict.fromkeys(["kd", *cast]) if name in cast}, obtainer)
    report(rows, costs, found, list(refused), command, obtainer, args)


def measured(cast: dict[str, list[list[Entry]]], obtainer: Obtainer) -> dict[str, float]:
    """Return the median, over rounds, of each method's seconds per step against those of plain KD."""
    ratios: dict[str, list[float]] = {name: [] for name in cast}
    steps = {name: step_seconds(name, entries, obtainer) for name, entries in cast.items()}
    for step in steps.values():  # warm up: the first steps allocate memory
        step.seconds()
    for _ in range(ROUNDS):
        seconds = {name: step.seconds() for name, step in steps.items()}
        for name in cast:
            ratios[name].append(seconds[name] / seconds.get("kd", seconds[name]))
    return {name: statistics.median(found) for name, found in ratios.items()}


def marks(args: argparse.Namespace) -> tuple[str, str]:
    """Return the marks around the table in a file."""
    return f"<!-- {args.table}: begin -->", f"<!-- {args.table}: end -->"


def report(
    rows: dict[str, dict[str, Any]],
    costs: dict[str, float],
    found: dict[str, list[tuple[Entry, Artifact]]],
    refused: Sequence[str],
    command: str,
    obtainer: Obtainer,
    args: argparse.Namespace,
) -> None:
    """Print the table, and write it where asked."""
    some = next(iter(found.values()))
    teacher = next((a for e, a in some if e.role == "teacher"), None)
    student = next(a for e, a in some if e.role == "student")
    order = sorted(rows, key=lambda n: -(rows[n]["paired"] or {"mean": float("-inf")})["mean"])
    cells = []
    for name in order:
        row, paired = rows[name], rows[name]["paired"] or {}
        cells.append(
            [
                name,
                per_cent(evidence.Summary(**row["student"])),
                per_cent(paired["mean"], signed=True) if paired else "–",
                interval(paired.get("low"), paired.get("high")),
                f"{costs[name]:.2f}" if name in costs else "–",
                f"{row['student']['n']}" + ("" if row["student"]["n"] == row["asked"] else f" of {row['asked']}"),
            ]
        )
    baseline = evidence.Summary(**rows["kd" if "kd" in rows else order[0]]["baseline"])
    cells.append(["(baseline)", per_cent(baseline), "–", "–", "–", str(baseline.n)])
    threads = f", {torch.get_num_threads()} threads" if obtainer.device.type == "cpu" else ""
    notes = [
        f"{student.result['train_images']:,} training images of {student.result['dataset']}, "
        f"{student.result['model']} of {count(student.result['parameters'])} parameters, "
        f"{student.result['epochs']} epochs; "
        + (
            f"teacher {teacher.result['model']}: {100 * teacher.result['selected']['test']['accuracy']:.2f}% test"
            if teacher
            else ""
        ),
        "Δ: student − baseline on test data, paired by seed, with its 95% t-interval; "
        "step: seconds per step and student against plain KD, teacher's forward included",
        f"{devices.describe(obtainer.device)}, {os.cpu_count()} cores{threads}, {student.spec.precision}, "
        f"torch {torch.__version__}, {platform.python_implementation()} {platform.python_version()}, "
        f"{datetime.now(UTC):%Y-%m-%d}",
        f"made by: {command}",
    ]
    if refused:
        notes.append(f"refused with these settings: {', '.join(refused)}; kdrun distill loss=NAME with them says why")
    table = Table(
        ["method", "test %", "Δ base", "95%", "step", "n"], cells, "Every method with its paper's defaults", notes
    )
    print(table.to_text())
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "costs": costs, "notes": notes}, indent=2) + "\n")
    if args.write:
        text = args.write.read_text()
        begin, end = marks(args)
        before, rest = text.split(begin)
        args.write.write_text(f"{before}{begin}\n{table.to_markdown()}{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    main()
