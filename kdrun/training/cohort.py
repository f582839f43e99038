"""A cohort: learners that see the same batches in lockstep; the teacher runs forward once per batch for all.

This is an optimisation behind `obtain` and changes no number: each learner has its own weights, optimiser,
random state, position and checkpoint, and is committed on its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from kdrun import faults
from kdrun.data.batches import Batch, Batches
from kdrun.models.base import Outputs
from kdrun.training import devices
from kdrun.training.learner import Diverged, Learner, Measured
from kdrun.training.progress import Bar
from kdrun.training.stop import Interrupted, StopFlag


@dataclass
class Course:
    """What all learners of a cohort share: the batches, and what is measured after every epoch."""

    batches: Batches
    measure_val: Callable[[nn.Module], Measured] | None
    measure_test: Callable[[nn.Module], Measured] | None  # after every epoch, under the papers' protocol only
    images: int


def train(
    learners: Sequence[Learner],
    teacher: nn.Module | None,
    course: Course,
    *,
    stop: StopFlag,
    bar: Bar,
    save: Callable[[Learner], None],
    diverged: Callable[[Learner, str], None],
) -> None:
    """Train all learners to their end, each from its own position.

    `save` is called after every epoch of a learner and when a signal comes; `diverged` once for a learner
    that is no longer finite, which then leaves the cohort. Raises Interrupted when a signal has come.
    """
    running = [learner for learner in learners if not learner.done]
    while running:
        epoch, start = min(learner.position for learner in running)
        shared = [0.0]  # seconds spent for all: batches and the teacher
        members = [learner for learner in running if learner.position[0] == epoch]
        for number, batch in enumerate(_timed(course.batches.epoch(epoch, start), shared), start=start):
            active = [learner for learner in members if learner.position == (epoch, number)]
            outputs = _teach(teacher, batch, active, shared)
            for learner in active:
                learner.step(batch, outputs if learner.objective.needs_teacher else None)
            bar.step(len(batch.images))
            faults.reach("after_batch")
            if stop.raised:
                break
        _wait(members[0].device, shared)
        try:
            stop.check()
            measured = [
                (
                    course.measure_val(learner.evaluated) if course.measure_val else None,
                    course.measure_test(learner.evaluated) if course.measure_test else None,
                )
                for learner in members
            ]
        except Interrupted:
            for learner in running:
                save(learner)
            raise
        for learner, (val, test) in zip(members, measured, strict=True):
            try:
                row = learner.end_epoch(val, test, course.images, shared[0] / len(members))
            except Diverged as error:
                running.remove(learner)
                diverged(learner, str(error))
                continue
            bar.epoch(learner.name, row, learner.recipe["epochs"])
            save(learner)
        running = [learner for learner in running if not learner.done]


@torch.no_grad()
def _teach(teacher: nn.Module | None, batch: Batch, active: Sequence[Learner], shared: list[float]) -> Outputs | None:
    """Run the teacher once, in eval mode, for all learners that listen to it."""
    listeners = [learner for learner in active if learner.objective.needs_teacher]
    if teacher is None or not listeners:
        return None
    started = time.perf_counter()
    with devices.autocast(listeners[0].precision, listeners[0].device):
        outputs: Outputs = teacher(batch.images)
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
