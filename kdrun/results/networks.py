"""Trained networks as the store's files describe them, and rows: the seeds of one role and network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from kdrun.artifact import check_files, read_result
from kdrun.files import RunFailed
from kdrun.records import ArtifactJson, Epoch, PointJson, ResultJson, RunJson, TrainingJson
from kdrun.results import statistics
from kdrun.results.statistics import Summary

Which = Literal["selected", "last"]  # the epoch whose numbers are meant


@dataclass(frozen=True)
class StoredNetwork:
    """One artifact of the store; its logits are read on demand."""

    folder: Path
    result: ResultJson

    @classmethod
    def read(cls, folder: Path, used: ArtifactJson | None = None) -> StoredNetwork:
        """Read an artifact's result.json; if `used`, its entry in run.json, is given, the seed is taken from there.

        Raise ValueError if there is no result.json, Damaged if it is damaged, RunFailed if it cannot be read.
        """
        try:
            result = read_result(folder)
        except FileNotFoundError:
            raise ValueError(f"{folder}: no result.json, so its training is unfinished or was removed") from None
        return cls(folder, result if used is None else {**result, "seed": used["seed"]})

    @property
    def finished(self) -> bool:
        """Whether the training ended with weights and numbers."""
        return bool(self.result["status"] == "done")

    @property
    def tested(self) -> bool:
        """Whether it has logits on test data; another model's answers to training images have none."""
        return self.finished and self.selected["test"] is not None

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return int(self.result["seed"])

    @property
    def fingerprints(self) -> frozenset[str]:
        """The fingerprints of the trainings that it consists of: its own."""
        return frozenset([str(self.result["fingerprint"])])

    def logits(self, part: str = "test") -> NDArray[np.floating]:
        """Return the selected epoch's logits on "val" or "test" data, (N, C)."""
        return self._stored(part)

    def labels(self, part: str = "test") -> NDArray[np.integer]:
        """Return the labels of the "val" or "test" data, (N,)."""
        return self._stored(f"{part}_labels")

    def keeps(self, part: str) -> bool:
        """Return whether the store has its logits on "val" or "test" data."""
        if "logits.safetensors" not in self.result["checksums"]:
            return False
        with self._open() as file:
            return {part, f"{part}_labels"} <= set(file.keys())

    def _stored(self, name: str) -> NDArray[Any]:
        with self._open() as file:
            tensor: NDArray[Any] = file.get_tensor(name)
        return tensor

    def file(self, name: str) -> Path:
        """Return one of its files after verifying its checksum.

        Raise Damaged if the checksum differs, RunFailed if the file cannot be read.
        """
        if name not in self._whole:
            check_files(self.folder, self.result, [name])
            self._whole.add(name)
        return self.folder / name

    @cached_property
    def _whole(self) -> set[str]:
        """The names of the files whose checksums were verified already."""
        return set()

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with safe_open(self.file("logits.safetensors"), framework="numpy") as file:
            yield file

    @property
    def selected(self) -> Epoch:
        """The numbers of the selected epoch, which every finished network has."""
        assert self.result["selected"] is not None
        return self.result["selected"]

    def point(self, part: str, key: str = "accuracy", epoch: Which = "selected") -> float:
        """Return one number of the selected or the last epoch; NaN if it was not measured."""
        parts: Mapping[str, Any] = self.result[epoch] or {}
        measured = parts.get(part)
        return math.nan if measured is None else float(measured[key])

    def environment(self) -> str:
        """Return in words the versions, the device and the precision of the training."""
        versions = ", ".join(f"{name} {version}" for name, version in self.result["versions"].items())
        threads = self.result["threads"]
        how = f"{self.result['precision']}{', compiled' if self.result.get('compiled') else ''}"
        how += f", {ranks} processes" if (ranks := self.result.get("ranks", 1)) > 1 else ""
        return f"{versions}; {self.result['device']}, {threads} thread{'s'[: threads != 1]}, {how}"

    def data(self) -> PointJson:
        """Return what comparison.json records of it: everything but the logits."""
        training = {key: self.result.get(key) for key in TrainingJson.__annotations__}
        return cast(PointJson, training | {"folder": self.folder.name})


@dataclass(frozen=True, eq=False)
class Row:
    """All seeds of one role and network.

    `label` is shown instead of the role. `lane` names the student that the row belongs to if there are several. `of`
    is the role of an ensemble's members; it is empty for other rows.
    """

    role: str
    model: str
    networks: Sequence[StoredNetwork]
    label: str
    lane: str = ""
    of: str = ""

    @property
    def finished(self) -> list[StoredNetwork]:
        """The networks that ended with weights."""
        return [m for m in self.networks if m.finished]

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprints of its trainings, in order."""
        return [str(m.result["fingerprint"]) for m in self.networks]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the networks that ended with weights."""
        return [m.seed for m in self.finished]

    def summary(self, part: str, key: str = "accuracy", epoch: Which = "selected") -> Summary | None:
        """Summarise one number over the seeds."""
        return statistics.summary([m.point(part, key, epoch) for m in self.finished])

    def lost(self) -> str:
        """Return the number of unfinished networks by status: `1 diverged`; empty if all finished."""
        return lost(self.networks)

    def count(self) -> str:
        """Return the number of finished networks: `6`, or `5 of 6`."""
        done, total = len(self.finished), len(self.networks)
        return str(done) if done == total else f"{done} of {total}"


def read_rows(folders: Sequence[Path], record: RunJson) -> list[Row]:
    """Return a run's artifacts as rows, in the order of its run.json (`record`).

    A run may use an artifact in another role than it was trained in: with alpha=0 the student is the baseline.
    Two trainings with the same seed never share a row. Raise as StoredNetwork.read does.
    """
    used: Sequence[ArtifactJson | None] = record.get("artifacts") or [None] * len(folders)
    groups: dict[tuple[str, str, str, str, int], dict[int, StoredNetwork]] = {}
    for entry, folder in zip(used, folders, strict=True):
        network = StoredNetwork.read(folder, entry)
        as_used = entry or network.result
        role = str(as_used["role"])
        names = (role, str(as_used.get("label") or role), str(as_used.get("lane") or ""), str(network.result["model"]))
        number = next(n for n in count() if network.seed not in groups.get((*names, n), {}))
        groups.setdefault((*names, number), {})[network.seed] = network
    return [
        Row(role, model, [*by_seed.values()], label, lane) for (role, label, lane, model, _), by_seed in groups.items()
    ]


class Opened(NamedTuple):
    """The networks of some folders of the store, and a sentence for each that is damaged or cannot be read."""

    networks: list[StoredNetwork]
    problems: list[str]


def open_networks(folders: Iterable[Path]) -> Opened:
    """Return the networks that are still in the store and whose files of numbers are undamaged."""
    opened = Opened([], [])
    for folder in dict.fromkeys(folders):
        if not (folder / "result.json").exists():
            continue
        try:
            network = StoredNetwork.read(folder)
            for name in {"history.csv", "logits.safetensors"} & network.result["checksums"].keys():
                network.file(name)
            opened.networks.append(network)
        except RunFailed as error:
            opened.problems.append(f"unreadable: {error}")
    return opened


def names_of(rows: Sequence[Row]) -> dict[Row, str]:
    """Return a unique name for each row: its label, with its student or network if several rows share the label."""
    labels = [row.label for row in rows]
    names: dict[Row, str] = {}
    for row in rows:
        name = row.label if labels.count(row.label) == 1 else f"{row.label} {row.lane or row.model}"
        same = sum(other.partition(" #")[0] == name for other in names.values())
        names[row] = f"{name} #{same + 1}" if same else name
    return names


def same_images(networks: Sequence[StoredNetwork], part: str = "test") -> bool:
    """Return whether all networks were measured on the same images of a part, "val" or "test"."""
    first, *others = networks
    return all(
        all(first.result.get(key) == other.result.get(key) for key in ("dataset", "data"))
        and np.array_equal(first.labels(part), other.labels(part))
        for other in others
    )


def lost(networks: Sequence[StoredNetwork]) -> str:
    """Return the number of unfinished networks by status: `2 diverged, 1 oom`; empty if there are none."""
    states = Counter(str(m.result["status"]) for m in networks if not m.finished)
    return ", ".join(f"{n} {state}" for state, n in states.items())
