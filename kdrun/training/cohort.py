"""A cohort: learners that see the same batches in lockstep, so that each teacher's forward pass runs once per batch.

This is an optimisation behind `obtain` and changes no number: each learner has its own weights, optimiser,
random state, position and checkpoint, and is committed on its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kdrun import faults, losses
from kdrun.data.batches import Batch, Batches
from kdrun.data.sets import FileSet, ImageSet
from kdrun.models.base import Outputs, logits_alone
from kdrun.signals import Interrupted, StopFlag
from kdrun.spec import Spec
from kdrun.training import devices
from kdrun.training.checkpoint import Pace
from kdrun.training.distributed import ALONE, Ranks
from kdrun.training.learner import Diverged, Learner
from kdrun.training.measure import Measured, measure_images
from kdrun.training.networks import build_model, replicate, sample_outputs
from kdrun.training.request import Request
from kdrun.training.rounding import EXACT, Rounding
from kdrun.training.settings import Settings
from kdrun.training.table import Table
from kdrun.training.teaching import Teaching

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Unit:
    """Learners that share their position and their checkpoint: peers, or a single learner."""

    learners: Sequence[Learner]

    @property
    def position(self) -> tuple[int, int]:
        """The epoch and the batch that come next, both from 0."""
        return self.learners[0].position

    @property
    def done(self) -> bool:
        """Whether nothing is left to train; a peer that is done goes on teaching until all are."""
        return all(learner.done for learner in self.learners)

    def step(self, batch: Batch, teachers: Sequence[Outputs]) -> None:
        """Train on one batch: the forward passes of all peers, then loss, backward and optimiser step of each.

        Zhang et al. 2018 update one network after the other within a step. With all forward passes first, the result
        does not depend on the order of the networks.
        """
        outputs = [learner.forward(batch) for learner in self.learners]
        for i, (learner, own) in enumerate(zip(self.learners, outputs, strict=True)):
            learner.update(batch, own, [*outputs[:i], *outputs[i + 1 :]] or teachers)

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed training needs."""
        return {"learners": [learner.state() for learner in self.learners]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        for learner, own in zip(self.learners, state["learners"], strict=True):
            learner.restore(own)


@dataclass(frozen=True)
class CohortContext:
    """What all learners of a cohort share."""

    settings: Settings
    spec: Spec  # that of any learner: images, precision and protocol are the same for all
    batches: Batches
    teachers: Sequence[nn.Module | None] = ()  # None: a file of answers, whose table has all logits
    tables: Sequence[Table | None] = ()  # one per teacher; empty if logits are computed at every step
    rounding: Rounding = EXACT  # how the teachers' logits are rounded
    val: ImageSet | FileSet | None = None  # measured after every epoch
    test: ImageSet | FileSet | None = None  # measured after every epoch, under the papers' protocol only


@dataclass(frozen=True)
class BatchTrained:
    """All learners have trained on a batch of `images` images."""

    images: int


@dataclass(frozen=True)
class EpochEnded:
    """A learner has finished an epoch; `row` is the new row of its history."""

    learner: Learner
    row: Mapping[str, float]


@dataclass(frozen=True)
class CheckpointDue:
    """A unit must be saved: because of `checkpoint_every`, because it is done, or because a signal has come."""

    unit: Unit


@dataclass(frozen=True)
class LearnerDiverged:
    """A learner, or one of its peers, is no longer finite: it has left the cohort."""

    learner: Learner
    reason: str


Event = BatchTrained | EpochEnded | CheckpointDue | LearnerDiverged


def train(units: Sequence[Unit], context: CohortContext) -> Iterator[Event]:
    """Train all units to their end, each from its own position, and yield what happens.

    Raise Interrupted once a signal has come, after all running units were saved.
    """
    device, ranks, precision = context.settings.device, context.settings.ranks, context.spec.precision
    stop = ranks.shared_stop(context.settings.stop)
    devices.set_float32(precision)
    teaching = Teaching(
        context.teachers,
        context.batches,
        precision=precision,
        device=device,
        tables=context.tables,
        rounding=context.rounding,
    )
    running = [unit for unit in units if not unit.done]
    pace = Pace(context.settings.checkpoint_every)  # only rank 0 saves, so only its pace has an effect
    while running:
        epoch, start = min(unit.position for unit in running)
        members = [unit for unit in running if unit.position[0] == epoch]
        clock = Clock()  # times the work shared by all members: batches, teachers, waiting for the GPU
        try:
            yield from _train_epoch(members, epoch, start, context, teaching, clock, stop, pace)
            with clock:
                if device.type == "cuda":  # once an epoch, so that images/s measure work, not kernel launches
                    torch.cuda.synchronize(device)
            stop.check()
            measured = {learner: _measure(context, learner) for unit in members for learner in unit.learners}
        except Interrupted:
            yield from map(CheckpointDue, running)
            raise
        seconds = clock.seconds / len(measured)
        due = pace.after_epoch(epoch + 1)
        to_save = []
        for unit in members:
            failures: dict[Learner, str] = {}
            for learner in unit.learners:
                val, test = measured[learner]
                try:
                    row = learner.end_epoch(val, test, len(context.batches.images), seconds)
                except Diverged as error:
                    failures[learner] = str(error)
                else:
                    yield EpochEnded(learner, row)
            if not failures:
                to_save += [unit] if due or unit.done else []
                continue
            running.remove(unit)  # if one peer diverged, the others cannot go on
            cause = next(iter(failures.values()))
            for learner in unit.learners:
                yield LearnerDiverged(learner, failures.get(learner, f"{learner.name}: its peer diverged ({cause})"))
        with pace.saving() if due else nullcontext():
            yield from map(CheckpointDue, to_save)
        running = [unit for unit in running if not unit.done]
    if teaching.shown:
        computed, shown = teaching.computed, teaching.shown
        share = 100 * computed / shown
        given = f" ({teaching.given:,} in a bank)" if teaching.given else ""
        log.info(
            "teacher logits: %s of %s were computed (%.0f%%), the others looked up%s",
            f"{computed:,}",
            f"{shown:,}",
            share,
            given,
        )


def _train_epoch(
    members: Sequence[Unit],
    epoch: int,
    start: int,
    context: CohortContext,
    teaching: Teaching,
    clock: Clock,
    stop: StopFlag,
    pace: Pace,
) -> Iterator[Event]:
    """Train units on the batches of an epoch from `start` on, until its end or a signal, and yield what happens."""
    teaching.begin(epoch, start)
    for number, batch in enumerate(clock.timed(context.batches.epoch(epoch, start)), start=start):
        active = [unit for unit in members if unit.position == (epoch, number)]
        with clock:
            alone = [unit.learners[0].objective for unit in active if len(unit.learners) == 1]  # peers teach peers
            objectives = [objective for objective in alone if objective.needs_teacher]
            logits_only = all(objective.logits_only for objective in objectives)
            strong = any(objective.needs_strong for objective in objectives)
            own = teaching.teacher_outputs(batch, number, logits_only=logits_only, strong=strong) if objectives else []
        teacher_outputs = [context.settings.ranks.gather(outputs, batch) for outputs in own]
        for unit in active:
            unit.step(batch, teacher_outputs)  # forward, loss, backward, optimiser step
        yield BatchTrained(len(batch.whole.labels))
        faults.reach("after_batch")
        if stop.after_batch():
            return
        if number + 1 < len(context.batches) and pace.after_batch():  # the last batch is counted by after_epoch
            with pace.saving():
                yield from map(CheckpointDue, active)


class Clock:
    """Adds up the seconds spent within `with clock:`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self._started

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches, and add up the time of loading them."""
        while True:
            with self:
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def _measure(context: CohortContext, learner: Learner) -> list[Measured | None]:
    """Measure a learner's network on the validation and test images, if the cohort has them."""
    how, spec = context.settings, context.spec
    learner.broadcast_buffers()
    return [
        None
        if images is None
        else measure_images(learner.evaluated, images, spec, how.device, how.stop, workers=how.workers, ranks=how.ranks)
        for images in (context.val, context.test)
    ]


def new_unit(
    group: Sequence[Request],
    teachers: Sequence[nn.Module | None],
    steps: int,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Unit:
    """Return the learners of one request or of peers as one unit, before its first step.

    `teachers` are the cohort's, on the device; an epoch has `steps` batches. Raise ValueError if a term cannot
    compare these networks.
    """
    models = []
    for request in group:
        spec = request.spec
        network = build_model(spec, seed=spec.seed, weights=request.weights) if ranks.leads else None
        models.append(replicate(network, spec, device, ranks))
    strong = any(losses.build(r.spec.objective).needs_strong for r in group)  # peers have one objective
    outputs = [sample_outputs(model, r.spec, strong=strong) for model, r in zip(models, group, strict=True)]
    learners = []
    for i, (request, model) in enumerate(zip(group, models, strict=True)):
        spec = request.spec
        objective = losses.build(spec.objective)
        taught = [*outputs[:i], *outputs[i + 1 :]] or [
            _sample(teacher, spec, strong) for teacher in teachers if objective.needs_teacher
        ]
        objective.prepare(outputs[i], taught, request.setting, seed=spec.seed)
        ranks.broadcast_tensors(*objective.parameters(), *objective.buffers())
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


def _sample(teacher: nn.Module | None, spec: Spec, strong: bool) -> Outputs:
    """Return a teacher's outputs for two blank images, or only logits for a file of answers."""
    if teacher is None:
        return logits_alone(torch.zeros(2, spec.model["num_classes"]))
    return sample_outputs(teacher, spec, strong=strong)
