"""The keys of run.json, sweep.json, result.json and comparison.json, shared by the code that writes and reads them.

Writers give every key (tests/test_records.py checks this). Readers can rely only on the keys in NEEDED (total=False):
files of older versions lack some others, and a run whose run.json is missing or damaged is read as one without keys.
`sealed.read` checks every file against these types. Statistics are dataclasses of results/statistics.py, written field
by field. The module is long because the types refer to one another.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

# types with limits of their values: bounds for a number, a pattern for a string, another type for a dict
Share = Annotated[float, (0, 1)]
Amount = Annotated[float, (0, 1e300)]
Count = Annotated[int, (0, 10**15)]
Fingerprint = Annotated[str, "[0-9a-f]{12}"]
Folder = Annotated[str, r"[^/\x00]+-[0-9a-f]{12}"]  # name of an artifact's folder in its store


class Accuracy(TypedDict):
    """Measures of a network on one part of the data: accuracy in [0, 1], negative log-likelihood in nats."""

    accuracy: Share
    nll: Amount


Part = Literal["train", "val", "test"]


class Epoch(TypedDict):
    """Measures of a network at one epoch, for each part of the data; None without such a part or without labels."""

    epoch: Count
    train: Accuracy | None
    val: Accuracy | None
    test: Accuracy | None


class BestOnTest(TypedDict):
    """The best epoch on test data, as the papers' protocol records it."""

    epoch: Count
    test: Accuracy


class TrainingJson(TypedDict, total=False):
    """What comparison.json takes over from the result.json of each of its networks."""

    fingerprint: str
    seed: int
    status: str  # done, diverged, oom, …
    reason: str | None
    parameters: Count
    bytes: Count
    epochs: Count
    selected: Epoch | None
    last: Epoch | None
    best_test: BestOnTest | None
    seconds: Amount
    formula: str | None
    loss: str | None  # names of the terms besides cross-entropy with the labels, or ce; None: nothing was trained
    T: float | None  # as typed; None if the loss does not read it
    alpha: float | None  # the same
    precision: str
    device: str
    threads: Count
    versions: dict[str, str]
    command: str
    protocol: str


class ResultJson(TrainingJson, total=False):
    """result.json: the result of one training, in the training's folder in the store."""

    role: str
    dataset: str
    data: str | None  # the digest of the data set
    model: str
    classes: list[str]
    select: str
    ema_decay: float | None
    images_per_second: Amount
    train_images: Count
    teachers: list[str]  # their fingerprints
    compiled: bool
    ranks: Count
    created: str
    checksums: dict[str, str]  # file name -> sha256
    schema: int  # of this and the next, see sealed.py
    checksum: str


class PointJson(TrainingJson, total=False):
    """One network of a row of comparison.json. An ensemble has `weights` instead of a folder of its own."""

    folder: Folder
    weights: list[float]
    measures: dict[str, float]  # on test data; see results/comparison/measures.py


class ArtifactJson(TypedDict, total=False):
    """One network of run.json, with the role that it has in the run."""

    role: str
    label: str
    lane: str
    seed: int
    fingerprint: Fingerprint
    folder: Folder


class ProcessJson(TypedDict):
    """The name of a process, see process.this."""

    host: str
    pid: Count
    began: float


class TransferJson(TypedDict, total=False):
    """What tables say of a run's transfer set."""

    omit_classes: list[Any]
    fraction: float
    labels: bool


class ReportedJson(TypedDict):
    """One source's numbers in a run's settings, by role or loss."""

    top1: dict[str, float]
    source: str


class ConfigJson(TypedDict, total=False):
    """The settings in run.json that are read back; there are many more."""

    dataset: dict[str, Any]
    transfer: TransferJson
    columns: list[str]
    reported: list[ReportedJson]
    robustness: dict[str, Any]


class RunJson(TypedDict, total=False):
    """run.json: what was requested of a run, how it ended, and which artifacts it used."""

    verb: str
    command: str
    created: str
    kdrun: str
    choices: dict[str, Any]  # config group -> name, or list of names
    overrides: list[str]
    config: Annotated[dict[str, Any], ConfigJson]
    formula: str | None
    notes: list[str]
    ensemble: dict[str, list[float]]  # the teachers' weights; only for `kdrun distill`
    status: str
    reason: str | None
    wanted: list[str]  # the fingerprints of all networks that it needs, written before they are trained
    artifacts: list[ArtifactJson]
    process: ProcessJson
    schema: int
    checksum: str


class SummaryJson(TypedDict):
    """A statistics.Summary."""

    mean: float
    std: float | None
    n: Count


class PairedJson(TypedDict):
    """A statistics.Paired."""

    mean: float
    low: float | None
    high: float | None
    p: Share | None
    n: Count


class TableJson(TypedDict):
    """A table as it is shown: its cells are text, keyed by column."""

    title: str
    columns: list[str]
    rows: list[dict[str, str]]
    notes: list[str]


class RowJson(TypedDict, total=False):
    """One row of comparison.json: all seeds of one role and network."""

    role: str
    label: str
    lane: str
    name: str
    ensemble_of: str | None
    model: str
    dataset: str
    n: Count
    asked: Count
    train_accuracy: SummaryJson | None
    val_accuracy: SummaryJson | None
    test_accuracy: SummaryJson | None
    train_nll: SummaryJson | None
    val_nll: SummaryJson | None
    test_nll: SummaryJson | None
    last_train_accuracy: SummaryJson | None
    last_val_accuracy: SummaryJson | None
    last_test_accuracy: SummaryJson | None
    ece: SummaryJson | None
    balanced_accuracy: SummaryJson | None
    macro_f1: SummaryJson | None
    top5_accuracy: SummaryJson | None
    agreement: SummaryJson | None
    kl_to_teacher: SummaryJson | None
    epochs_to_90: SummaryJson | None
    epochs_to_95: SummaryJson | None
    epochs_to_99: SummaryJson | None
    unsteadiness: SummaryJson | None
    paired: PairedJson | None
    gap_closed: float | None
    reported: list[dict[str, Any]]
    points: list[PointJson]


class Verdict(TypedDict, total=False):
    """A student against its baseline."""

    paired: PairedJson | None
    single_run: dict[str, Any] | None
    gap_closed: float | None
    verdict: str


class LaneJson(Verdict, total=False):
    """One of a comparison's students, with its statistics."""

    name: str
    teacher_gap: dict[str, Any] | None
    against_direct: PairedJson | None
    measures: dict[str, PairedJson | None]


class ComparisonJson(Verdict, total=False):
    """comparison.json: teachers, baselines and students of one run; its own statistics are those of the first lane."""

    kind: str
    formula: str | None
    rows: list[RowJson]
    lanes: list[LaneJson]
    table: TableJson
    verb: str | None
    command: str | None
    created: str | None
    overrides: list[str] | None
    choices: dict[str, Any] | None
    schema: int
    checksum: str


class CellJson(TypedDict, total=False):
    """One cell of sweep.json. While the sweep runs it holds the first four keys."""

    number: Count
    overrides: list[str]
    status: str
    reason: str | None
    swept: dict[str, str]  # key -> value
    p_holm: float | None
    rows: list[RowJson] | None
    paired: PairedJson | None
    verdict: str | None
    formula: str | None
    gap_closed: float | None


class Choice(TypedDict, total=False):
    """Which cell is the best for a student, and how certain that is."""

    verdict: str
    best: dict[str, Any] | None
    at_edge: list[str]
    best_p_holm: float | None
    luck: dict[str, Any] | None


class SweepLaneJson(Choice, total=False):
    """The choice for one of a sweep's several students; p_holm is keyed by the cell's number."""

    name: str
    p_holm: dict[int, float]


class SweepJson(Choice, total=False):
    """sweep.json: a sweep's cells and, once its table is written, the choice among them (for the first student)."""

    verb: str
    command: str
    created: str
    status: str
    process: ProcessJson
    overrides: list[str]
    searched: bool
    notes: list[str]
    wanted: list[str]  # the fingerprints of what is trained before the first cell runs
    cells: list[CellJson]
    kind: str
    lanes: list[SweepLaneJson]  # one for each of several students
    table: TableJson
    schema: int
    checksum: str


NEEDED: dict[type, set[str]] = {  # keys that every version wrote and readers rely on
    ResultJson: {
        "fingerprint", "role", "status", "reason", "seed", "dataset", "model", "classes", "protocol", "parameters",
        "bytes", "epochs", "selected", "last", "best_test", "seconds", "images_per_second", "train_images", "formula",
        "teachers", "precision", "device", "threads", "versions", "created", "command", "checksums",
    },
    RunJson: {"verb", "command", "created", "status", "choices", "overrides", "config", "artifacts"},
    ArtifactJson: {"role", "seed", "fingerprint", "folder"},
    ComparisonJson: {"rows"},
    RowJson: {"role", "model", "n", "asked", "test_accuracy", "points"},
    PointJson: {"fingerprint", "seed", "status"},
    LaneJson: {"name", "paired", "single_run", "gap_closed", "verdict"},
    SweepJson: {"verb", "command", "created", "status", "overrides", "cells"},
    CellJson: {"number", "overrides", "status"},
}  # fmt: skip
