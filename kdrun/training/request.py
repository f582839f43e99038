"""A request to `obtain`: one training, with the images that its spec identifies only by hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdrun import losses
from kdrun.data.answers import Answers
from kdrun.data.sets import FileSet, ImageSet
from kdrun.losses.base import Setting
from kdrun.spec import Spec, canonical


@dataclass(frozen=True)
class Sets:
    """The images of one training, and the names of their classes."""

    train: ImageSet | FileSet
    val: ImageSet | FileSet | None
    test: ImageSet | FileSet
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """A training to find in the store or to carry out."""

    role: str  # teacher, assistant, baseline, student or peer
    dataset: str
    model: str
    spec: Spec
    sets: Sets
    notes: dict[str, Any] = field(default_factory=dict)  # for tables: the loss, and T and alpha if it reads them
    weights: str | None = None  # a file to start from; its hash is in the spec
    answers: Answers | None = None  # for a teacher that is a file of answers
    name: str = ""  # for bars and logs, if role and model are not unique
    in_cell: bool = False  # whether only some cells of a sweep need it: the cell's result line then reports it

    @property
    def network(self) -> str:
        """The name, without the seed, in bars and log lines."""
        return self.name or f"{self.role} {self.model}"

    @property
    def label(self) -> str:
        """The training's name in log lines: the network with its seed, if there may be several."""
        return self.network + (f" seed {self.spec.seed}" if self.seeded else "")

    @property
    def seeded(self) -> bool:
        """Whether the network is trained once for each seed of a command."""
        return self.role not in ("teacher", "assistant")

    @property
    def setting(self) -> Setting:
        """What loss terms need to know of the training: number of samples, batch size and labels."""
        labels = self.sets.train.labels.cpu()
        return Setting(len(labels), self.spec.recipe["batch_size"], labels)

    @property
    def strong(self) -> Mapping[str, Any] | None:
        """The augmentations of the images' second view; None if no loss compares two views."""
        return losses.strong_view(self.spec.objective)

    @property
    def group(self) -> str:
        """A key that is the same for peers, which can only be trained together; empty for all others."""
        spec = self.spec
        if not spec.peers:
            return ""
        everyone = sorted(map(canonical, [{"model": spec.model, "recipe": spec.recipe}, *spec.peers]))
        return canonical([everyone, spec.data, spec.objective, spec.seed, spec.precision, spec.compiled])

    @property
    def adopted(self) -> bool:
        """Whether weights or answers come from a user's file, so that nothing is trained."""
        return "adopted" in self.spec.recipe


def group_peers(requests: Sequence[Request]) -> list[list[Request]]:
    """Group peers, which can only be trained together, ordered by fingerprint; every other request is a group alone."""
    groups: dict[str, list[Request]] = {}
    for request in requests:
        groups.setdefault(request.group or request.spec.fingerprint, []).append(request)
    return [sorted(group, key=lambda r: r.spec.fingerprint) for group in groups.values()]


def cohorts(requests: Sequence[Request]) -> list[list[Request]]:
    """Group requests that share batches (images, order, augmentation, batch size, protocol), teachers and bank.

    A request with one view joins those with two, because their first view is the same. Requests with different strong
    views are in different cohorts.
    """
    groups: dict[str, list[Request]] = {}
    for request in requests:
        groups.setdefault(_shared(request), []).append(request)
    grouped = []
    for group in groups.values():
        teachers = list(dict.fromkeys(_taught(r) for r in group if r.spec.teachers)) or [""]
        for i, taught in enumerate(teachers):  # requests without a teacher join the students of the first teachers
            alike = [r for r in group if _taught(r) == taught or (not r.spec.teachers and i == 0)]
            seen = [None if r.strong is None else canonical(r.strong) for r in alike]
            first, *others = dict.fromkeys(view for view in seen if view is not None) or [None]
            grouped.append([r for r, view in zip(alike, seen, strict=True) if view in (None, first)])
            grouped += [[r for r, view in zip(alike, seen, strict=True) if view == other] for other in others]
    return grouped


def _taught(request: Request) -> str:
    """Return a key of the teachers' logits that a request learns from."""
    return canonical([request.spec.teachers, request.spec.bank])


def _shared(request: Request) -> str:
    """Return a key of what the members of a cohort have in common; teachers do not join students."""
    spec, recipe = request.spec, request.spec.recipe
    shared = [spec.data, spec.seed, spec.precision, spec.compiled, recipe.get("batch_size"), recipe.get("protocol")]
    return json.dumps([request.role == "teacher", *shared], sort_keys=True)
