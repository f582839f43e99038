"""A cohort: learners that see the same batches in lockstep; each teacher runs forward once per batch for all.

This is an optimisation behind `obtain` and changes no number: each learner has its own weights, optimiser,
random state, position and checkpoint, and is committed on its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from kdrun import faults
from kdrun.data.batches import Batch, Batches
from kdrun.models.base import Outputs
from kdrun.training import devices
from kdrun.training.distributed import ALONE, Ranks
from kdrun.training.learner import Diverged, Learner
from kdrun.training.measure import Measured
from kdrun.training.progress import Bar, NoBar
from kdrun.training.stop import Interrupted, StopFlag
from kdrun.training.teaching import Table, Teaching
from kdrun.training.unit import Unit


@dataclass
class Course:
    """What all learners of a cohort share: the batches, and what is measured after every epoch."""

    batches: Batches
    measure_val: Callable[[nn.Module], Measured] | None
    measure_test: Callable[[nn.Module], Measured] | None  # after every epoch, under the papers' protocol only
    images: int
    ranks: Ranks = ALONE
    tables: Sequence[Table] = ()  # one per teacher, where what it says can be remembered


def train(
    units: Sequence[Unit],
    teachers: Sequence[nn.Module],
    course: Course,
    *,
    stop: StopFlag,
    bar: Bar | NoBar,
    save: Callable[[Unit], None],
    diverged: Callable[[Learner, str], None],
) -> None:
    """Train all learners to their end, each unit from its own position.

    `save` is called after every epoch of a unit and when a signal comes; `diverged` once for a learner that is
    no longer finite, which then leaves the cohort, with its peers. Raises Interrupted when a signal has come.
    """
    devices.set_float32(units[0].learners[0].precision)
    lead = units[0].learners[0]
    teaching = Teaching(teachers, course.batches, precision=lead.precision, device=lead.device, tables=course.tables)
    running = [unit for unit in units if not unit.done]
    while running:
        epoch, start = min(unit.position for unit in running)
        shared = [0.0]  # seconds spent for all: batches and the teachers
        members = [unit for unit in running if unit.position[0] == epoch]
        teaching.begin(start)
        for number, batch in enumerate(_timed(course.batches.epoch(epoch, start), shared), start=start):
            active = [unit for unit in members if unit.position == (epoch, number)]
            own = _teach(teaching, batch, active, shared)
            outputs = [course.ranks.gathered(said, batch) for said in own]
            for unit in active:
                unit.step(batch, outputs)
            bar.step(len(batch.whole.labels))
            faults.reach("after_batch")
            if stop.after_batch():
                break
        else:
            teaching.end()
        _wait(members[0].learners[0].device, shared)
        try:
            stop.check()
            measured = {learner: _measure(course, learner) for unit in members for learner in unit.learners}
        except Interrupted:
            for unit in running:
                save(unit)
            raise
        for unit in members:
            if _end_epoch(unit, measured, course, shared[0] / len(measured), bar, diverged):
                save(unit)
            else:
                running.remove(unit)
        running = [unit for unit in running if not unit.done]


def _measure(course: Course, learner: Learner) -> tuple[Measured | None, Measured | None]:
    learner.align()
    return (
        course.measure_val(learner.evaluated) if course.measure_val else None,
        course.measure_test(learner.evaluated) if course.measure_test else None,
    )


def _end_epoch(
    unit: Unit,
    measured: Mapping[Learner, tuple[Measured | None, Measured | None]],
    course: Course,
    seconds: float,
    bar: Bar | NoBar,
    diverged: Callable[[Learner, str], None],
) -> bool:
    """Close the epoch of a unit, and say whether it can go on: without one of its peers it cannot."""
    failed: dict[Learner, str] = {}
    for learner in unit.learners:
        try:
            row = learner.end_epoch(*measured[learner], course.images, seconds)
        except Diverged as error:
            failed[learner] = str(error)
        else:
            bar.epoch(learner.name, row, learner.recipe["epochs"])
    for learner in unit.learners if failed else ():
        diverged(learner, failed.get(learner, f"{learner.name}: its peer diverged ({next(iter(failed.values()))})"))
    return not failed


def _teach(teaching: Teaching, batch: Batch, active: Sequence[Unit], shared: list[float]) -> Sequence[Outputs]:
    """Ask the teachers once, for all learners that listen to them."""
    listeners = [unit.learners[0] for unit in active if unit.listens]
    if not listeners:
        return ()
    started = time.perf_counter()
    outputs = teaching.say(batch, logits_only=all(learner.objective.logits_only for learner in listeners))
    shared[0] += time.perf_counter() - started
    return outputs


def _wait(device: torch.device, shared: list[float]) -> None:
    """Wait, once an epoch, for what a GPU still has to do, so that images/s count work and not launches."""
    if device.type == "cuda":
        started = time.perf_counter()
        torch.cuda.synchronize(device)
        shared[0] += time.perf_counter() - started


def _timed(batches: Iterator[Batch], shared: list[float]) -> Iterator[Batch]:
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        shared[0] += time.perf_counter() - started
        if batch is None:
            return
        yield batch
