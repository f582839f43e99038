"""What is asked of `obtain`: one training, with the images that its spec's hashes stand for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kdrun.data.sets import FileSet, ImageSet
from kdrun.spec import Spec


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

    role: str  # teacher, baseline or student
    dataset: str
    model: str
    spec: Spec
    sets: Sets
    notes: dict[str, Any] = field(default_factory=dict)  # for the tables: T and alpha as typed
    weights: str | None = None  # a file to start from; its hash stands in the spec

    @property
    def label(self) -> str:
        """Name the training in a bar or a log line."""
        return f"{self.role} {self.model}" + (f" seed {self.spec.seed}" if self.role != "teacher" else "")

    @property
    def adopted(self) -> bool:
        """Whether nothing is trained: the weights are a user's file."""
        return "adopted" in self.spec.recipe
