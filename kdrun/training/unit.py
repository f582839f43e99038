"""What goes on together: one learner, or peers that teach each other and so can only be trained side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kdrun import losses
from kdrun.data.batches import Batch
from kdrun.losses.base import Setting
from kdrun.models.base import Outputs
from kdrun.training.distributed import ALONE, Ranks
from kdrun.training.learner import Learner
from kdrun.training.networks import build_model, on_device, sample_outputs
from kdrun.training.request import Request


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
        """Return everything that a resumed training needs."""
        return {"learners": [learner.state() for learner in self.learners]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state` gave."""
        for learner, own in zip(self.learners, state["learners"], strict=True):
            learner.restore(own)


def new_unit(
    group: Sequence[Request], teachers: Sequence[nn.Module], steps: int, device: torch.device, ranks: Ranks = ALONE
) -> Unit:
    """Make the learners of one request, or of peers', as they stand before their first step.

    `teachers` are the cohort's, on the device; an epoch has `steps` batches. Raises ValueError for terms that
    cannot compare these networks.
    """
    models = [_network(r, device, ranks) for r in group]
    outputs = [sample_outputs(model, r.spec) for model, r in zip(models, group, strict=True)]
    learners = []
    for i, (request, model) in enumerate(zip(group, models, strict=True)):
        spec, labels = request.spec, request.sets.train.labels
        objective = losses.build(spec.objective)
        taught = [*outputs[:i], *outputs[i + 1 :]] or [
            sample_outputs(teacher, spec) for teacher in teachers if objective.needs_teacher
        ]
        setting = Setting(len(labels), spec.recipe["batch_size"], labels.cpu())
        objective.prepare(outputs[i], taught, setting, seed=spec.seed)
        ranks.align(*objective.parameters(), *objective.buffers())
        learners.append(
            Learner(
                request.label,
                model,
                objective,
                spec.recipe,
                steps_per_epoch=steps,
                seed=spec.seed,
                precision=spec.precision,
                compiled=spec.compiled,
                device=device,
                ranks=ranks,
            )
        )
    return Unit(learners)


def _network(request: Request, device: torch.device, ranks: Ranks) -> nn.Module:
    """Build a network as it starts; other processes than the first, which may lack its files, take it from there."""
    spec = request.spec
    made = build_model(spec, seed=spec.seed, weights=request.weights) if ranks.leads else build_model(spec, blank=True)
    network = on_device(made, device)
    ranks.align(*network.parameters(), *network.buffers())
    return network
