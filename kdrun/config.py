"""What may be typed: the typed root keys, their ranges, and every error with its remedy. Knows no torch.

The root keys, the recipe and the transfer set are dataclasses here. A model's, a data set's and a loss's
keys are those of its YAML file: the file is the schema (closed keys, types from the defaults), and the
constructor it names checks the ranges.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NewType, Union, get_args, get_origin

CONF = next(  # beside the package in a checkout, inside it in a wheel
    path
    for path in (Path(__file__).parents[1] / "conf", Path(__file__).parent / "conf")
    if (path / "distill.yaml").is_file()
)

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "multistep", "cosine", "onecycle")
PROTOCOLS = ("heldout", "paper")
Word = NewType("Word", str)  # a string that no number stands in for: a file, a name
UNSET: dict[str, Any] = {  # types of keys that are null by default
    "weight": float | None,
    "weights": Word | None,
    "negatives": int | None,
    "student_layer": Word | None,
    "teacher_layer": Word | None,
    "student_layers": list[str] | None,
    "teacher_layers": list[str] | None,
}
COMBINATIONS = ("average", "sum")  # of several teachers: their probabilities, or a term for each
COLUMNS = ("nll", "ece", "balanced", "f1", "top5", "kl", "to90", "to95", "to99", "swing", "cost")  # on request
PRECISIONS = ("fp32", "tf32", "bf16", "auto")
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
    ema_decay: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    protocol: str = "heldout"

    def problems(self, where: str) -> list[str]:
        """List what is out of range, each with its key, its value and what is allowed."""
        found = [
            *_range(where, "epochs", self.epochs, low=1),
            *_range(where, "batch_size", self.batch_size, low=2),
            *_choice(where, "optimizer", self.optimizer, OPTIMIZERS),
            *_range(where, "lr", self.lr, above=0),
            *_range(where, "momentum", self.momentum, low=0, below=1),
            *_range(where, "weight_decay", self.weight_decay, low=0),
            *_choice(where, "schedule", self.schedule, SCHEDULES),
            *_range(where, "warmup_epochs", self.warmup_epochs, low=0),
            *_range(where, "gamma", self.gamma, above=0, high=1),
            *_range(where, "label_smoothing", self.label_smoothing, low=0, below=1),
            *_range(where, "clip_norm", self.clip_norm, above=0),
            *_range(where, "ema_decay", self.ema_decay, above=0, below=1),
            *_range(where, "patience", self.patience, low=1),
            *_range(where, "min_delta", self.min_delta, low=0),
            *_choice(where, "protocol", self.protocol, PROTOCOLS),
        ]
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            found.append(f"{where}.betas={list(self.betas)}: needs two numbers, each in [0, 1)")
        if any(m < 1 for m in self.milestones) or sorted(set(self.milestones)) != list(self.milestones):
            found.append(f"{where}.milestones={list(self.milestones)}: needs rising epoch numbers from 1")
        if self.schedule == "multistep" and not self.milestones:
            found.append(f"{where}.schedule=multistep needs milestones: type e.g. '{where}.milestones=[15,25]'")
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            found.append(f"{where}.nesterov=true needs momentum: type {where}.nesterov=false or {where}.momentum=0.9")
        if self.warmup_epochs >= self.epochs > 0:
            found.append(f"{where}.warmup_epochs={self.warmup_epochs:g}: must be below {where}.epochs={self.epochs}")
        if self.schedule == "onecycle" and self.warmup_epochs:
            found.append(f"{where}.warmup_epochs: schedule=onecycle has a warm-up of its own; choose cosine, or 0")
        return found


@dataclass
class Transfer:
    """The set that baseline and student learn from; the teacher always sees all that is not held out.

    `extra` adds unlabelled images for the student alone: the baseline could learn nothing from them.
    """

    fraction: float = 1.0
    seed: int = 0
    omit_classes: list[Any] = field(default_factory=list)
    labels: bool = True
    extra: str | None = None

    def problems(self) -> list[str]:
        """List what is out of range."""
        return _range("transfer", "fraction", self.fraction, above=0, high=1)


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
    force: bool = False
    plan: bool = False
    tracker: str = "${oc.env:KDRUN_TRACKER,auto}"
    report: bool = "${oc.decode:${oc.env:KDRUN_REPORT,true}}"  # type: ignore[assignment]
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
    loss: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)
    robustness: Robustness | None = None
    sweep: dict[str, Any] = field(default_factory=dict)
    quick: dict[str, Any] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """List every value out of its range, with key, value and allowed range."""
        found = [
            *_range("", "T", self.T, above=0),
            *_range("", "alpha", self.alpha, low=0, high=1),
            *_range("", "seed", self.seed, low=0, below=2**31),
            *_range("", "seeds", self.seeds, low=1, high=10_000),
            *_range("", "workers", self.workers, low=0),
            *_choice("", "precision", self.precision, PRECISIONS),
            *_choice("", "combine", self.combine, COMBINATIONS),
            *unknown_columns("columns", self.columns),
            *_range("", "generations", self.generations, low=0, high=100),
            *_range("dataset", "val_fraction", self.dataset.get("val_fraction"), low=0, below=1),
            *_range("teacher", "seed", self.teacher.get("seed"), low=0, below=2**31),
            *self.recipe.problems("recipe"),
            *self.transfer.problems(),
            *(self.robustness.problems() if self.robustness else []),
        ]
        found += [*_device(self.device), *_outputs(self.outputs), *_tracker(self.tracker)]
        if isinstance(recipe := self.teacher.get("recipe"), Recipe):
            found += recipe.problems("teacher.recipe")
        for group in ("teachers", "assistants"):
            for name, node in getattr(self, group).items():
                found += _range(f"{group}.{name}", "seed", node.get("seed"), low=0, below=2**31)
                found += _range(f"{group}.{name}", "weight", node.get("weight"), above=0)
        return found


@dataclass
class Robustness:
    """What `kdrun evaluate` does to the test images: corruptions of these severities, attacks of these ε (of 255)."""

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
            *_range(where, "images", self.images, low=1),
            *_range(where, "pgd_steps", self.pgd_steps, low=1),
            *_range(where, "pgd_step", self.pgd_step, above=0, high=255),
            *_range(where, "attack_images", self.attack_images, low=1),
            *_range(where, "seed", self.seed, low=0, below=2**31),
        ]
        for name in (name for name in self.corruptions if name not in CORRUPTIONS):
            there = f"{nearest(name, CORRUPTIONS)} Existing: {', '.join(CORRUPTIONS)}"
            found.append(f"{where}.corruptions: there is no {name}.{there}")
        if not all(1 <= severity <= 5 for severity in self.severities) or (self.corruptions and not self.severities):
            found.append(f"{where}.severities={said(self.severities)}: needs whole numbers from 1 to 5")
        for key in ("fgsm", "pgd"):
            if not all(0 < epsilon <= 255 for epsilon in getattr(self, key)):
                found.append(f"{where}.{key}={said(getattr(self, key))}: ε is told in 1/255 and must lie in (0, 255]")
        for key in ("corruptions", "severities", "fgsm", "pgd"):
            if len(set(values := getattr(self, key))) < len(values):
                found.append(f"{where}.{key}={said(values)}: something stands there twice")
        if not (self.corruptions or self.fgsm or self.pgd):
            found.append(f"{where}: with neither corruptions, fgsm nor pgd nothing is measured; type robustness=none")
        return found


@dataclass
class Evaluate:
    """The root keys of `kdrun evaluate`."""

    run: str = "???"
    device: str = "auto"
    batch_size: int = 256
    outputs: str = "${oc.env:KDRUN_OUTPUTS,outputs}"
    robustness: Robustness | None = None
    cost: bool = False
    force: bool = False

    def problems(self) -> list[str]:
        """List every value out of its range."""
        return [
            *_range("", "batch_size", self.batch_size, low=1),
            *_device(self.device),
            *_outputs(self.outputs),
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
    device: str = "cpu"
    batch_size: int = 256
    outputs: str = "${oc.env:KDRUN_OUTPUTS,outputs}"

    def problems(self) -> list[str]:
        """List every value out of its range, and what is typed in vain."""
        onnx = "format=onnx is checked with ONNX Runtime on the CPU; leave device out"
        unread = [] if self.check else [("device", self.device), ("batch_size", self.batch_size)]
        return [
            *_choice("", "format", self.format, FORMATS),
            *_range("", "seed", self.seed, low=0, below=2**31),
            *_range("", "batch_size", self.batch_size, low=1),
            *_device(self.device),
            *_outputs(self.outputs),
            *([f"device={self.device}: {onnx}"] if self.format == "onnx" and self.device != "cpu" else []),
            *(f"{key}={value}: is not read with check=false" for key, value in unread if value != getattr(Export, key)),
        ]


# Recipe keys that are read under some settings only: the key that decides, and its values that read them.
READ_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd",)),
    "nesterov": ("optimizer", ("sgd",)),
    "betas": ("optimizer", ("adam", "adamw")),
    "milestones": ("schedule", ("multistep",)),
    "gamma": ("schedule", ("multistep",)),
}

MEASURED = "kdrun evaluate RUN robustness=… measures what was trained"

# What a verb never reads; typing it there is refused, with the place where it belongs.
IGNORED = {
    "distill": {},
    "train_teacher": {
        "student": "the teacher alone is trained",
        "recipe": "the teacher's recipe is teacher.recipe",
        "loss": "the teacher learns from labels alone",
        "T": "the teacher learns from labels alone",
        "alpha": "the teacher learns from labels alone",
        "transfer": "the teacher always trains on everything that is not held out",
        "seed": "the teacher's seed is teacher.seed",
        "teacher.from": "it is trained here; distill takes it",
        "teachers": "one is trained at a time: teacher=NAME",
        "assistants": "distill trains them",
        "students": "the teacher alone is trained",
        "generations": "distill trains them",
        "combine": "distill combines teachers",
        "seeds": "one teacher is trained; its seed is teacher.seed",
        "robustness": MEASURED,
    },
    "train_baseline": {
        "teacher": "the baseline has no teacher",
        "loss": "the baseline learns from labels alone",
        "T": "the baseline learns from labels alone",
        "alpha": "the baseline learns from labels alone",
        "teachers": "the baseline has no teacher",
        "assistants": "the baseline has no teacher",
        "students": "one baseline is trained at a time: student=NAME",
        "generations": "the baseline has no teacher",
        "combine": "the baseline has no teacher",
        "robustness": MEASURED,
    },
    "evaluate": {},
    "export": {},
}


def _name(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _range(
    where: str,
    key: str,
    value: float | None,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
) -> list[str]:
    """Check one number against its range; None (not set) passes."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return []
    bad = (
        not math.isfinite(value)
        or (low is not None and value < low)
        or (above is not None and value <= above)
        or (high is not None and value > high)
        or (below is not None and value >= below)
    )
    left = f"[{low:g}" if low is not None else f"({above:g}" if above is not None else "(-inf"
    right = f"{high:g}]" if high is not None else f"{below:g})" if below is not None else "inf)"
    return [f"{_name(where, key)}={value:g}: must lie in {left}, {right}"] if bad else []


def _choice(where: str, key: str, value: str, allowed: Sequence[str]) -> list[str]:
    return [] if value in allowed else [f"{_name(where, key)}={value}: choose {', '.join(allowed)}"]


def unknown_columns(key: str, words: Sequence[str]) -> list[str]:
    """Say which words name no column that a table could have."""
    wrong = [word for word in words if word not in COLUMNS]
    hint = nearest(wrong[0], COLUMNS) if wrong else ""
    return [f"{key}: there is no column {', '.join(wrong)}.{hint} Existing: {', '.join(COLUMNS)}"] if wrong else []


def _device(device: str) -> list[str]:
    known = re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", device)
    return [] if known else [f"device={device}: choose auto, cpu, cuda or cuda:N"]


def _outputs(folder: str) -> list[str]:
    if not folder.strip():
        return ["outputs is empty: name a folder with outputs=DIR or KDRUN_OUTPUTS"]
    return [f"outputs={folder}: ~ is the shell's; write the folder out"] if folder.startswith("~") else []


def _tracker(name: str) -> list[str]:
    if name in TRACKERS and not installed(name):
        return [f"tracker={name}: needs {name}, which is not installed; type pip install 'kdrun[{name}]'"]
    return _choice("", "tracker", name, ["auto", "none", *TRACKERS])


def installed(package: str) -> bool:
    """Say whether a package could be imported, without importing it."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None  # any folder of that name would be found without an origin


def nearest(word: str, known: Iterable[str]) -> str:
    """Give ' Did you mean …?' for the known words closest to `word`, or nothing."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    folded = [k for k in known if k.lower() == word.lower() and k not in close]
    return f" Did you mean {' or '.join(folded + close)}?" if close or folded else ""


def leaves(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List every dotted key of a composed configuration, inner nodes too."""
    keys = []
    for key, value in node.items():
        keys.append(prefix + str(key))
        if isinstance(value, Mapping):
            keys += leaves(value, f"{prefix}{key}.")
    return keys


def type_of(key: str, default: Any) -> Any:
    """Give the type that a YAML file's default stands for; null stands for anything, but for a few known keys."""
    if default is None:
        return UNSET.get(key, Any)
    if isinstance(default, list):
        kinds = {type(item) for item in default}
        return list[kinds.pop()] if len(kinds) == 1 else list  # type: ignore[misc]
    return Word if isinstance(default, str) else type(default)


def type_problem(typed: str, value: Any, wanted: Any, default: Any) -> str | None:
    """Say how the value of the word `typed` is not of the type `wanted`, or None where it is."""
    if not _fits(value, wanted):
        return f"{typed}: needs {_called(wanted)}" + (
            f" (it is {said(default)} by default)" if default != "???" else ""
        )
    numbers = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int | float)]
    if any(abs(v) > 2**63 if isinstance(v, int) else not math.isfinite(v) for v in numbers):
        return f"{typed}: needs a finite number of sensible size"
    return None


def said(value: Any) -> str:
    """Write a setting as it would be typed: null, true, [1,2]."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(said, value))}]"
    return str(value)


def _fits(value: Any, wanted: Any) -> bool:
    if wanted is Any:
        return True
    if get_origin(wanted) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(wanted))
    if wanted in (NoneType, Word):
        return value is None if wanted is NoneType else isinstance(value, str)
    if get_origin(wanted) is list:
        return isinstance(value, list) and all(_fits(item, get_args(wanted)[0]) for item in value)
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    if is_dataclass(wanted):
        return isinstance(value, Mapping)
    allowed: dict[Any, tuple[type, ...]] = {float: (int, float), str: (str, int, float)}
    return isinstance(value, allowed.get(wanted, get_origin(wanted) or wanted))


def _called(wanted: Any) -> str:
    if get_origin(wanted) in (Union, UnionType):
        return " or ".join(_called(one) for one in get_args(wanted))
    if get_origin(wanted) is list or wanted is list:
        return "a list such as [1,2]"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", NoneType: "null"}
    return "a word (no number)" if wanted is Word else words.get(wanted, "a block of keys")
