"""The configuration schema: the typed root keys, their ranges, and every error with its remedy. Does not import torch.

The module is long because it is the whole schema: the allowed values of every key are in one place. Which verb reads a
key, and when, is in command/unread.py. The root keys, the recipe and the transfer set are dataclasses here. The keys
of a model, a data set or a loss are those of its YAML file: the file is the schema (closed keys, types from the
defaults), and the constructor that it names checks the ranges.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kdrun.checks import as_typed, in_range, installed, nearest, one_of, typed_path

CONF = next(  # beside the package in a checkout, inside it in a wheel
    path
    for path in (Path(__file__).parents[1] / "conf", Path(__file__).parent / "conf")
    if (path / "distill.yaml").is_file()
)

AUTO = "auto"  # recipe.ema_decay: resolved once the number of steps is known; checkpoint_every: see `every`
TIME = "time"  # plan=time also estimates the time
PNG = "png"  # report=png also writes the pictures as PNG files
SELECTIONS = ("accuracy", "balanced")  # the validation accuracy that chooses an epoch; balanced: the mean over classes
COMBINATIONS = ("average", "sum")  # for several teachers: the mean of their probabilities, or a term for each
BANK = {"dtype": "float32", "top_k": None}  # the neutral teacher.bank, which stores logits as they are
COLUMNS = ("nll", "ece", "balanced", "f1", "top5", "kl", "to90", "to95", "to99", "swing", "cost")  # optional columns
TRACKERS = sorted(file.stem for file in (Path(__file__).parent / "tracking").glob("[a-z]*.py") if file.stem != "base")
FORMATS = ("safetensors", "onnx", "torch_export")
MEASURING = ("evaluate", "export")  # verbs that train nothing, so that they have no comparison
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "salt_and_pepper",
    "blur",
    "contrast",
    "brightness",
    "pixelation",
    "jpeg",
    "occlusion",
    "shift",
    "rotation",
)


class Every(NamedTuple):
    """How often something happens: every `number` epochs, steps or minutes."""

    number: float
    unit: str  # epochs, steps, min, or auto: after every epoch, and within one after `number` minutes


EVERY_EPOCH = Every(1, AUTO)


def every(text: str) -> Every:
    """Parse checkpoint_every: 5epochs, 200steps, 2min or auto. Raise ValueError for anything else."""
    if text == AUTO:
        return EVERY_EPOCH
    match = re.fullmatch(r"(?:(\d{1,9})(epoch|step)s?|(\d{1,6}(?:\.\d{1,6})?)min)", text)
    if match is None or float(match[1] or match[3]) <= 0:
        raise ValueError(
            f"checkpoint_every={text}: choose auto, or a number above 0 with its unit: 5epochs, 200steps or 2min"
        )
    return Every(int(match[1]), f"{match[2]}s") if match[1] else Every(float(match[3]), "min")


@dataclass
class Recipe:
    """How one network is trained. Under `recipe` for baseline and student, under `teacher.recipe` for the teacher."""

    epochs: int = 30
    batch_size: int = 64
    optimizer: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.0
    decay_norm_and_bias: bool = True
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.1
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    ema_decay: float | str | None = None  # auto: at most 0.998, and over at most a tenth of the training
    class_weights: str | None = None
    select: str = "accuracy"
    patience: int | None = None
    min_delta: float = 0.0
    protocol: str = "heldout"

    def problems(self, where: str) -> list[str]:
        """List what is out of range, each with its key, its value and what is allowed."""
        found = [
            *in_range(where, "epochs", self.epochs, low=1),
            *in_range(where, "batch_size", self.batch_size, low=2),
            *one_of(where, "optimizer", self.optimizer, ("sgd", "adam", "adamw")),
            *in_range(where, "lr", self.lr, above=0),
            *in_range(where, "momentum", self.momentum, low=0, below=1),
            *in_range(where, "weight_decay", self.weight_decay, low=0),
            *one_of(where, "schedule", self.schedule, ("constant", "multistep", "cosine", "onecycle")),
            *in_range(where, "warmup_epochs", self.warmup_epochs, low=0),
            *in_range(where, "gamma", self.gamma, above=0, high=1),
            *in_range(where, "label_smoothing", self.label_smoothing, low=0, below=1),
            *in_range(where, "clip_norm", self.clip_norm, above=0),
            *_ema_decay(where, self.ema_decay),
            *one_of(where, "class_weights", self.class_weights or "balanced", ("balanced",)),
            *one_of(where, "select", self.select, SELECTIONS),
            *in_range(where, "patience", self.patience, low=1),
            *in_range(where, "min_delta", self.min_delta, low=0),
            *one_of(where, "protocol", self.protocol, ("heldout", "paper")),
        ]
        at = f"{where}." if where else ""
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            found.append(f"{at}betas={list(self.betas)}: needs two numbers, each in [0, 1)")
        if any(m < 1 for m in self.milestones) or sorted(set(self.milestones)) != list(self.milestones):
            found.append(f"{at}milestones={list(self.milestones)}: needs increasing epoch numbers, 1 or above")
        if self.schedule == "multistep" and not self.milestones:
            found.append(f"{at}schedule=multistep needs milestones: type e.g. '{at}milestones=[15,25]'")
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            found.append(f"{at}nesterov=true needs momentum: type {at}nesterov=false or {at}momentum=0.9")
        if self.warmup_epochs >= self.epochs > 0:
            found.append(f"{at}warmup_epochs={self.warmup_epochs:g}: must be below {at}epochs={self.epochs}")
        if self.schedule == "onecycle" and self.warmup_epochs:
            found.append(
                f"{at}warmup_epochs: schedule=onecycle has its own warm-up; type {at}warmup_epochs=0, or "
                f"{at}schedule=cosine"
            )
        return found


@dataclass
class Transfer:
    """The set that baseline and student learn from; the teacher always learns from all images that are not held out.

    `extra` adds unlabelled images only for the student, because the baseline cannot learn from them.
    """

    fraction: float = 1.0
    seed: int = 0
    omit_classes: list[Any] = field(default_factory=list)
    labels: bool = True
    extra: str | None = None

    def problems(self) -> list[str]:
        """List what is out of range."""
        return in_range("transfer", "fraction", self.fraction, above=0, high=1)


@dataclass
class Root:
    """The root keys of every verb that trains."""

    T: float = 4.0
    alpha: float = 0.9
    seed: int = 0
    seeds: int = 3
    device: str = "auto"
    precision: str = "fp32"
    compile: bool = False
    outputs: str = "${oc.env:KDRUN_OUTPUTS,outputs}"
    workers: int = 2
    data_timeout: float = 60.0  # seconds
    checkpoint_every: str = AUTO
    force: bool = False
    plan: Any = False  # true, or time
    verbose: bool = "${kdrun.verbose:}"  # type: ignore[assignment]
    quiet: bool = False
    tracker: str = "${oc.env:KDRUN_TRACKER,auto}"
    report: Any = "${oc.decode:${oc.env:KDRUN_REPORT,true}}"  # true, false, or png: its pictures as PNG too
    columns: list[str] = field(default_factory=list)
    examples: list[int] = field(default_factory=list)
    transfer: Transfer = field(default_factory=Transfer)
    recipe: Recipe = field(default_factory=Recipe)
    dataset: dict[str, Any] = field(default_factory=dict)
    student: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)
    teachers: dict[str, Any] = field(default_factory=dict)
    assistants: dict[str, Any] = field(default_factory=dict)
    students: dict[str, Any] = field(default_factory=dict)
    combine: str = "average"
    generations: int = 0
    augment: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)
    reported: list[Any] = field(default_factory=list)
    robustness: Robustness | None = None
    sweep: dict[str, Any] = field(default_factory=dict)
    quick: dict[str, Any] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """List every value out of its range, with key, value and allowed range."""
        found = [
            *in_range("", "T", self.T, above=0),
            *in_range("", "alpha", self.alpha, low=0, high=1),
            *in_range("", "seed", self.seed, low=0, below=2**31),
            *in_range("", "seeds", self.seeds, low=1, high=10_000),
            *in_range("", "workers", self.workers, low=0),
            *in_range("", "data_timeout", self.data_timeout, above=0, high=86_400),
            *_checkpoint_every(self.checkpoint_every),
            *_plan(self.plan),
            *_report(self.report),
            *_loudness(self.verbose, self.quiet),
            *one_of("", "precision", self.precision, ("fp32", "tf32", "bf16", "auto")),
            *one_of("", "combine", self.combine, COMBINATIONS),
            *unknown_columns("columns", self.columns),
            *in_range("", "generations", self.generations, low=0, high=100),
            *in_range("dataset", "val_fraction", self.dataset.get("val_fraction"), low=0, below=1),
            *in_range("teacher", "table_gb", self.teacher.get("table_gb"), low=0),
            *_views("augment", self.augment),
            *_views("teacher.augment", self.teacher.get("augment", {})),
            *_bank(self.teacher.get("bank", {}), self.augment.get("views")),
            *in_range("teacher", "seed", self.teacher.get("seed"), low=0, below=2**31),
            *self.recipe.problems("recipe"),
            *self.transfer.problems(),
            *(self.robustness.problems() if self.robustness else []),
        ]
        found += [*_device(self.device), *_outputs(self.outputs), *_tracker(self.tracker)]
        found += [*_places("dataset.root", self.dataset.get("root")), *_places("transfer.extra", self.transfer.extra)]
        found += [*_places("dataset.file", self.dataset.get("file")), *_lacking(self.dataset)]
        if isinstance(recipe := self.teacher.get("recipe"), Recipe):
            found += recipe.problems("teacher.recipe")
        for group in ("teachers", "assistants"):
            for name, node in getattr(self, group).items():
                found += in_range(f"{group}.{name}", "seed", node.get("seed"), low=0, below=2**31)
                found += in_range(f"{group}.{name}", "weight", node.get("weight"), above=0)
        return found


@dataclass
class Robustness:
    """How `kdrun evaluate` changes the test images: corruptions of these severities, attacks of these ε (of 255)."""

    corruptions: list[str] = field(default_factory=lambda: list(CORRUPTIONS))
    severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    images: int | None = None
    fgsm: list[float] = field(default_factory=lambda: [1.0, 2.0, 4.0, 8.0])
    pgd: list[float] = field(default_factory=lambda: [1.0, 2.0, 4.0, 8.0])
    pgd_steps: int = 20
    pgd_step: float | None = None
    attack_images: int | None = 1000
    seed: int = 0

    def problems(self) -> list[str]:
        """List what is out of range."""
        where = "robustness"
        found = [
            *in_range(where, "images", self.images, low=1),
            *in_range(where, "pgd_steps", self.pgd_steps, low=1),
            *in_range(where, "pgd_step", self.pgd_step, above=0, high=255),
            *in_range(where, "attack_images", self.attack_images, low=1),
            *in_range(where, "seed", self.seed, low=0, below=2**31),
        ]
        for name in (name for name in self.corruptions if name not in CORRUPTIONS):
            there = f"{nearest(name, CORRUPTIONS)} Available: {', '.join(CORRUPTIONS)}"
            found.append(f"{where}.corruptions: there is no {name}.{there}")
        if not all(1 <= severity <= 5 for severity in self.severities) or (self.corruptions and not self.severities):
            found.append(f"{where}.severities={as_typed(self.severities)}: needs whole numbers from 1 to 5")
        for key in ("fgsm", "pgd"):
            if not all(0 < epsilon <= 255 for epsilon in getattr(self, key)):
                found.append(
                    f"{where}.{key}={as_typed(getattr(self, key))}: ε is in units of 1/255 and must lie in (0, 255]"
                )
        for key in ("corruptions", "severities", "fgsm", "pgd"):
            if len(set(values := getattr(self, key))) < len(values):
                found.append(f"{where}.{key}={as_typed(values)}: a value is listed twice")
        if not (self.corruptions or self.fgsm or self.pgd):
            found.append(f"{where}: corruptions, fgsm and pgd are all empty; to measure nothing, type robustness=none")
        return found


@dataclass
class Place:
    """Where the images of a finished run are now; null: where they were when it was trained."""

    root: Any = None
    file: str | None = None


@dataclass
class Evaluate:
    """The root keys of `kdrun evaluate`."""

    run: str = "???"
    dataset: Place = field(default_factory=Place)
    device: str = "auto"
    batch_size: int = 256
    outputs: str = "${oc.env:KDRUN_OUTPUTS,outputs}"
    robustness: Robustness | None = None
    cost: bool = False
    force: bool = False
    verbose: bool = "${kdrun.verbose:}"  # type: ignore[assignment]
    quiet: bool = False

    def problems(self) -> list[str]:
        """List every value out of its range."""
        return [
            *in_range("", "batch_size", self.batch_size, low=1),
            *_device(self.device),
            *_outputs(self.outputs),
            *_places("dataset.root", self.dataset.root),
            *_loudness(self.verbose, self.quiet),
            *_places("dataset.file", self.dataset.file),
            *(self.robustness.problems() if self.robustness else []),
        ]


@dataclass
class Export:
    """The root keys of `kdrun export`."""

    run: str = "???"
    format: str = "safetensors"
    role: str = "student"
    seed: int | None = None
    to: str | None = None
    check: bool = True
    dataset: Place = field(default_factory=Place)
    device: str = "cpu"
    batch_size: int = 256
    outputs: str = "${oc.env:KDRUN_OUTPUTS,outputs}"
    verbose: bool = "${kdrun.verbose:}"  # type: ignore[assignment]
    quiet: bool = False

    def problems(self) -> list[str]:
        """List every value out of its range, and every value that is not read."""
        found = [
            *one_of("", "format", self.format, FORMATS),
            *in_range("", "seed", self.seed, low=0, below=2**31),
            *in_range("", "batch_size", self.batch_size, low=1),
            *_device(self.device),
            *_outputs(self.outputs),
            *_places("dataset.root", self.dataset.root),
            *_loudness(self.verbose, self.quiet),
            *_places("dataset.file", self.dataset.file),
        ]
        if self.format == "onnx" and self.device != "cpu":
            found.append(f"device={self.device}: format=onnx is checked with ONNX Runtime on the CPU; leave device out")
        if not self.check:
            given = {"device": self.device, "batch_size": self.batch_size}
            given |= {"dataset.root": self.dataset.root, "dataset.file": self.dataset.file}
            unread = {key: value for key, value in given.items() if value != getattr(Export, key, None)}
            found += [f"{key}={value}: has no effect with check=false" for key, value in unread.items()]
        return found


def _ema_decay(where: str, value: float | str | None) -> list[str]:
    """Return what is wrong with the decay of the weights' moving average."""
    if isinstance(value, str) and value != AUTO:
        return [f"{where}.ema_decay={value}: choose auto, null, or a number in (0, 1)"]
    return [] if isinstance(value, str) else in_range(where, "ema_decay", value, above=0, below=1)


def _views(where: str, augment: dict[str, Any]) -> list[str]:
    """Return what is wrong with the views of an augmentation."""
    views, seed = augment.get("views"), augment.get("seed", 0)
    if views is not None and not isinstance(views, int):
        return [f"{where}.views={views}: must be a whole number of views of each image, or null for fresh ones"]
    found = [*in_range(where, "views", views, low=1, high=10_000), *in_range(where, "seed", seed, low=0, below=2**31)]
    if views is None and seed:
        found.append(f"{where}.seed={seed}: has no effect without {where}.views=K; add it, or leave {where}.seed out")
    return found


def _bank(bank: dict[str, Any], views: int | None) -> list[str]:
    """Return what is wrong with the bank of a teacher's logits."""
    found = [
        *one_of("teacher.bank", "dtype", str(bank.get("dtype", "float32")), ("float32", "float16")),
        *in_range("teacher.bank", "top_k", bank.get("top_k"), low=1),
    ]
    if views is None:
        for key in (key for key, neutral in BANK.items() if bank.get(key, neutral) != neutral):
            where = f"teacher.bank.{key}"
            found.append(
                f"{where}={bank[key]}: has no effect without augment.views=K, which turns the bank on; type both, or "
                f"leave {where} out"
            )
    return found


def _loudness(verbose: bool, quiet: bool) -> list[str]:
    """Return a problem if a command is both verbose and quiet."""
    both = "verbose=true quiet=true: one prints every epoch, the other the table alone; leave one of them out"
    return [both] if verbose and quiet else []


def _plan(value: Any) -> list[str]:
    """Return what is wrong with `plan`."""
    known = value in (True, False, TIME)
    return [] if known else [f"plan={value}: choose true, {TIME} (with an estimate of the time), or false"]


def _report(value: Any) -> list[str]:
    """Return what is wrong with `report`."""
    known = value in (True, False, PNG) or str(value).startswith("${")  # the default, which is not resolved yet
    return [] if known else [f"report={value}: choose true, {PNG} (the page's pictures as PNG files too), or false"]


def _checkpoint_every(text: str) -> list[str]:
    """Return what is wrong with the pace of checkpoints."""
    try:
        every(text)
    except ValueError as error:
        return [str(error)]
    return []


def unknown_columns(key: str, words: Sequence[str]) -> list[str]:
    """Return which words name no column of a table."""
    wrong = [word for word in words if word not in COLUMNS]
    hint = nearest(wrong[0], COLUMNS) if wrong else ""
    return [f"{key}: there is no column {', '.join(wrong)}.{hint} Available: {', '.join(COLUMNS)}"] if wrong else []


def _lacking(dataset: dict[str, Any]) -> list[str]:
    """Return a problem if a user's own data set file lacks keys that every data set needs."""
    usual = {"val_fraction": 0.1, "split_seed": 0, "crop_padding": 0, "flip": False}
    lines = [f"{key}: {as_typed(value)}" for key, value in usual.items() if dataset and key not in dataset]
    plural = "s"[: len(lines) > 1]
    return [f"dataset: the chosen data set's .yaml file lacks the line{plural} {'; '.join(lines)}"] if lines else []


def _device(device: str) -> list[str]:
    known = re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", device)
    return [] if known else [f"device={device}: choose auto, cpu, cuda or cuda:N"]


def _outputs(folder: str) -> list[str]:
    if not folder.strip():
        return ["outputs is empty: name a folder with outputs=DIR or KDRUN_OUTPUTS"]
    if folder.startswith("~"):
        return [f"outputs={folder}: ~ is not expanded here; type the full path"]
    try:
        typed_path(folder, "outputs=")
    except ValueError as error:
        return [str(error)]
    return []


def _places(key: str, typed: Any) -> list[str]:
    """Return which paths of a key, given as one or as a list, have an impossible name."""
    problems = []
    for place in typed if isinstance(typed, list) else [typed]:
        try:
            typed_path(str(place), f"{key}=")
        except ValueError as error:
            problems.append(str(error))
    return problems


def _tracker(name: str) -> list[str]:
    """Return why a tracker cannot be used."""
    if name in TRACKERS and not installed(name):
        return [f"tracker={name}: needs {name}, which is not installed; type pip install 'kdrun[{name}]'"]
    if ":" in name:  # the user's own package.module:Class, which is checked later, once torch may be imported
        return []
    return one_of("", "tracker", name, ["auto", "none", *TRACKERS])
