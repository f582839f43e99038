"""Artifacts as their files describe them, and the rows that they make."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from kdrun.results import statistics
from kdrun.results.statistics import Summary


@dataclass(frozen=True)
class Member:
    """One artifact; its logits are read when they are asked for."""

    folder: Path
    result: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Member:
        """Read an artifact's result.json. Raises ValueError where it is missing or no JSON."""
        try:
            return cls(folder, json.loads((folder / "result.json").read_text()))
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder}: no readable result.json ({error})") from None

    @property
    def finished(self) -> bool:
        """Whether it has numbers."""
        return bool(self.result["status"] == "done")

    @property
    def seed(self) -> int:
        """The seed that it was trained with."""
        return int(self.result["seed"])

    def logits(self) -> NDArray[np.floating]:
        """Give the selected epoch's logits on test data, (N, C)."""
        logits: NDArray[np.floating] = self._stored("test")
        return logits

    def labels(self) -> NDArray[np.integer]:
        """Give the labels of the test data, (N,)."""
        labels: NDArray[np.integer] = self._stored("test_labels")
        return labels

    def _stored(self, name: str) -> Any:
        path = self.folder / "logits.safetensors"
        try:
            with safe_open(path, framework="numpy") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} cannot be read ({error})") from None

    def point(self, part: str, key: str = "accuracy", epoch: str = "selected") -> float:
        """Give one number of the selected or the last epoch; NaN where it was not measured."""
        measured = (self.result[epoch] or {}).get(part)
        return math.nan if measured is None else float(measured[key])

    def environment(self) -> str:
        """Say on what it was trained."""
        versions = ", ".join(f"{name} {version}" for name, version in self.result["versions"].items())
        threads = self.result["threads"]
        return f"{versions}; {self.result['device']}, {threads} thread{'s'[: threads != 1]}, {self.result['precision']}"

    def data(self) -> dict[str, Any]:
        """Give all that a comparison records of it, but for its logits."""
        keys = ("fingerprint", "seed", "status", "reason", "parameters", "bytes", "epochs", "selected", "last",
                "best_test", "seconds", "formula", "T", "alpha", "precision", "device", "threads", "versions",
                "command", "protocol")  # fmt: skip
        return {key: self.result.get(key) for key in keys} | {"folder": self.folder.name}


@dataclass(frozen=True)
class Row:
    """All seeds of one role and network."""

    role: str
    model: str
    members: Sequence[Member]

    @property
    def finished(self) -> list[Member]:
        """Those that ended with weights."""
        return [m for m in self.members if m.finished]

    @property
    def fingerprints(self) -> list[str]:
        """What identifies its trainings, in order."""
        return [str(m.result["fingerprint"]) for m in self.members]

    def summary(self, part: str, key: str = "accuracy", epoch: str = "selected") -> Summary | None:
        """Summarise one number over the seeds."""
        return statistics.summary([m.point(part, key, epoch) for m in self.finished])

    def lost(self) -> str:
        """Say what became of those that did not finish, if any: `1 diverged`."""
        return lost(self.members)

    def count(self) -> str:
        """Say how many finished: `6`, or `5 of 6`."""
        done, asked = len(self.finished), len(self.members)
        return str(done) if done == asked else f"{done} of {asked}"


def lost(members: Sequence[Member]) -> str:
    """Count the unfinished by what became of them: `2 diverged, 1 oom`; nothing where there are none."""
    states = Counter(str(m.result["status"]) for m in members if not m.finished)
    return ", ".join(f"{n} {state}" for state, n in states.items())
