"""What is asked of `obtain`: one training, with the images that its spec's hashes stand for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kdrun.data.sets import FileSet, ImageSet
from kdrun.losses.base import Setting
from kdrun.spec import Spec, canonical


@dataclass(frozen=True)
class Sets:
    """The images of one training: what it learns from, what selects the epoch, what it is tested on."""

    train: ImageSet | FileSet
    val: ImageSet | FileSet | None
    test: ImageSet | FileSet
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """One training that is wanted."""

    role: str  # teacher, assistant, baseline, student or peer
    dataset: str
    model: str
    spec: Spec
    sets: Sets
    notes: dict[str, Any] = field(default_factory=dict)  # for the tables: T and alpha as typed
    weights: str | None = None  # a file to start from; its hash stands in the spec
    name: str = ""  # in bars and logs, where role and model do not tell it from another

    @property
    def label(self) -> str:
        """Name the training in a bar or a log line."""
        seed = f" seed {self.spec.seed}" if self.role not in ("teacher", "assistant") else ""
        return (self.name or f"{self.role} {self.model}") + seed

    @property
    def setting(self) -> Setting:
        """What its loss terms know of the training."""
        labels = self.sets.train.labels.cpu()
        return Setting(len(labels), self.spec.recipe["batch_size"], labels)

    @property
    def group(self) -> str:
        """What it shares with the peers that it can only be trained with; empty for all others."""
        spec = self.spec
        if not spec.peers:
            return ""
        everyone = sorted(map(canonical, [{"model": spec.model, "recipe": spec.recipe}, *spec.peers]))
        return canonical([everyone, spec.data, spec.objective, spec.seed, spec.precision, spec.compiled])

    @property
    def adopted(self) -> bool:
        """Whether nothing is trained: the weights are a user's file."""
        return "adopted" in self.spec.recipe


def group_peers(requests: Sequence[Request]) -> list[list[Request]]:
    """Group what can only be trained together: peers; all others stand alone."""
    groups: dict[str, list[Request]] = {}
    for request in requests:
        groups.setdefault(request.group or request.spec.fingerprint, []).append(request)
    return [sorted(group, key=lambda r: r.spec.fingerprint) for group in groups.values()]


def cohorts(requests: Sequence[Request]) -> list[list[Request]]:
    """Group what shares batches and teachers: same images, order, augmentation, batch size and protocol."""
    groups: dict[str, list[Request]] = {}
    for request in requests:
        groups.setdefault(_shared(request), []).append(request)
    grouped = []
    for group in groups.values():
        teachers = list(dict.fromkeys(r.spec.teachers for r in group if r.spec.teachers)) or [()]
        for i, taught in enumerate(teachers):  # what has no teacher goes with the first teachers' students
            mates = [r for r in group if r.spec.teachers == taught or (not r.spec.teachers and i == 0)]
            grouped.append(mates)
    return grouped


def _shared(request: Request) -> str:
    """Return what the members of a cohort have in common; a teacher trains by itself."""
    spec, recipe = request.spec, request.spec.recipe
    shared = [spec.data, spec.seed, spec.precision, spec.compiled, recipe.get("batch_size"), recipe.get("protocol")]
    return json.dumps([request.role == "teacher", *shared], sort_keys=True)
