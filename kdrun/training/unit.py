"""What goes on together: one learner, or peers that teach each other and so can only be trained side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdrun.data.batches import Batch
from kdrun.models.base import Outputs
from kdrun.training.learner import Learner


@dataclass(frozen=True, eq=False)
class Unit:
    """Learners that stand at the same batch, with one checkpoint; all but peers stand alone."""

    learners: Sequence[Learner]

    @property
    def position(self) -> tuple[int, int]:
        """The epoch and the batch that come next, both from 0."""
        return self.learners[0].position

    @property
    def done(self) -> bool:
        """Whether nothing is left to train; a peer that has converged goes on teaching until all have."""
        return all(learner.done for learner in self.learners)

    @property
    def listens(self) -> bool:
        """Whether the cohort's teachers are needed."""
        return len(self.learners) == 1 and self.learners[0].objective.needs_teacher

    def step(self, batch: Batch, teachers: Sequence[Outputs]) -> None:
        """Train on one batch. Peers all look first, then each learns from what the others saw.

        Zhang et al. 2018 update one network after the other within a step; looking first makes the result
        independent of their order.
        """
        outputs = [learner.forward(batch) for learner in self.learners]
        for i, (learner, own) in enumerate(zip(self.learners, outputs, strict=True)):
            others = [*outputs[:i], *outputs[i + 1 :]]
            learner.update(batch, own, others or teachers)

    def state(self) -> dict[str, Any]:
        """Give everything that a resumed training needs."""
        return {"learners": [learner.state() for learner in self.learners]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state` gave."""
        for learner, own in zip(self.learners, state["learners"], strict=True):
            learner.restore(own)
