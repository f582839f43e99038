"""Train all networks of a sweep, cohort by cohort: shared ones once, and each cell runs when its own are ready."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kdrun import console, signals
from kdrun.command.composing import let_values_see
from kdrun.command.invocation import Invocation
from kdrun.files import CannotWrite
from kdrun.plan.requests import RequestBuilder, new_obtainer
from kdrun.plan.waves import Entry, requested, teachable, waves
from kdrun.signals import Interrupted, StopFlag
from kdrun.sweeps.run import want
from kdrun.training.obtain import Obtainer
from kdrun.training.request import cohorts

log = logging.getLogger(__name__)
# settings that all trainings of one obtainer have in common
SHARED = ("outputs", "device", "workers", "data_timeout", "checkpoint_every", "force", "tracker")


# a cell's configuration, its plain values if they are known, and the words that distinguish it
Composed = tuple[DictConfig, dict[str, Any] | None, str]
Complete = Callable[[Sequence[int]], None]


@dataclass(frozen=True)
class Cell:
    """A cell's number, its trainings in waves, and the words that set it apart."""

    number: int
    lineup: list[list[Entry]]
    apart: str

    @cached_property
    def fingerprints(self) -> set[str]:
        """The fingerprints of all networks of the cell."""
        return {entry.spec.fingerprint for wave in self.lineup for entry in wave}


def prefetch(invocation: Invocation, cells: Sequence[Composed], complete: Complete) -> None:
    """Obtain the trainings of all cells, wave by wave.

    `complete` is called with the numbers of cells as soon as their trainings are in the store, so that an interrupted
    sweep has results for them. A failure is logged and left to its cell, which trains alone and reports what is wrong.
    Raise Interrupted if a signal came, SystemExit if the disk is full, because then every cell would fail.
    """
    try:
        _prefetch(invocation, cells, complete)
    except Interrupted:
        log.warning("interrupted: everything so far is saved; the same command resumes")
        raise
    except CannotWrite as error:
        log.error("kdrun: %s", error)
        raise SystemExit(3) from None


def _prefetch(invocation: Invocation, cells: Sequence[Composed], complete: Complete) -> None:
    stop = StopFlag()
    obtainers: dict[str, Obtainer] = {}
    groups: dict[str, list[Cell]] = {}
    for number, (cfg, values, apart) in enumerate(cells):
        let_values_see(cfg)
        key = repr([cfg[name] for name in SHARED])
        try:
            folder = Path(str(cfg.hydra.sweep.dir)).absolute()
            obtainer = obtainers.setdefault(key, new_obtainer(invocation, cfg, folder, stop))
            with signals.raising(), console.busy(f"reading the data of cell {number + 1} of {len(cells)}"):
                choices = cfg.hydra.runtime.choices
                builder = RequestBuilder.read(invocation.verb, cfg, choices, obtainer.device, values)
                groups.setdefault(key, []).append(Cell(number, waves(builder, obtainer.store), apart))
        except Exception as error:  # the cell reports it
            if signals.received():  # interrupted code raised some other error
                raise Interrupted from None
            log.debug("left to its cell: %s", error)
    with stop:
        want(fingerprint for group in groups.values() for cell in group for fingerprint in cell.fingerprints)
    for key, group in groups.items():
        _obtain(obtainers[key], _named(group), stop, complete)


def _obtain(obtainer: Obtainer, cells: Sequence[Cell], stop: StopFlag, complete: Complete) -> None:
    everything = [request for cell in cells for wave in cell.lineup for request in requested(wave)]
    with stop:
        lacking = {request.spec.fingerprint for request in obtainer.expect(everything)}
    waiting = list(cells)

    def run_complete_cells() -> None:
        if ready := [cell.number for cell in waiting if lacking.isdisjoint(cell.fingerprints)]:
            complete(ready)
        waiting[:] = [cell for cell in waiting if cell.number not in ready]

    run_complete_cells()
    for number in range(max(len(cell.lineup) for cell in cells)):
        entries = [entry for cell in cells if number < len(cell.lineup) for entry in cell.lineup[number]]
        with stop:
            missing = obtainer.missing(requested([entry for entry in entries if teachable(entry, obtainer.store)]))
        for cohort in cohorts(missing):
            try:
                with stop:
                    obtainer.obtain(cohort)
            except CannotWrite:
                raise
            except Exception as error:
                log.warning("not all could be trained together (%s): the cells train what is missing", error)
                continue
            lacking.difference_update(request.spec.fingerprint for request in cohort)
            run_complete_cells()


def _named(cells: Sequence[Cell]) -> list[Cell]:
    """Name each training that is not common to all cells after its cell: role and model do not identify it."""
    everywhere = set[str].intersection(*(cell.fingerprints for cell in cells))

    def named(entry: Entry, apart: str) -> Entry:
        request = entry.request
        if request is None or not apart or entry.spec.fingerprint in everywhere:
            return entry
        return replace(entry, training=replace(request, name=f"{request.network} {apart}", in_cell=True))

    return [
        replace(cell, lineup=[[named(entry, cell.apart) for entry in wave] for wave in cell.lineup]) for cell in cells
    ]
