"""All trainings of a sweep, before its first cell runs: what cells share is trained once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

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

log = logging.getLogger(__name__)
SHARED = ("outputs", "device", "workers", "data_timeout", "checkpoint_every", "force", "tracker")  # of one obtainer
CellWaves = tuple[list[list[Entry]], str]  # the waves of one cell, and the words that set it apart


def prefetch(invocation: Invocation, cells: Sequence[tuple[DictConfig, str]]) -> None:
    """Obtain the trainings of all cells, each a configuration with the words that set it apart, wave by wave.

    A failure is logged and left to its cell, which trains alone and reports what is wrong. Raise Interrupted if a
    signal came, SystemExit if the disk is full, since then every cell would fail.
    """
    try:
        _prefetch(invocation, cells)
    except Interrupted:
        log.warning("interrupted: everything so far is saved; the same command resumes")
        raise
    except CannotWrite as error:
        log.error("kdrun: %s", error)
        raise SystemExit(3) from None


def _prefetch(invocation: Invocation, cells: Sequence[tuple[DictConfig, str]]) -> None:
    stop = StopFlag()
    obtainers: dict[str, Obtainer] = {}
    groups: dict[str, list[CellWaves]] = {}
    for number, (cfg, apart) in enumerate(cells, start=1):
        let_values_see(cfg)
        key = repr([cfg[name] for name in SHARED])
        try:
            folder = Path(str(cfg.hydra.sweep.dir)).absolute()
            obtainer = obtainers.setdefault(key, new_obtainer(invocation, cfg, folder, stop))
            with signals.raising(), console.busy(f"reading the data of cell {number} of {len(cells)}"):
                builder = RequestBuilder.read(invocation.verb, cfg, cfg.hydra.runtime.choices, obtainer.device)
                groups.setdefault(key, []).append((waves(builder, obtainer.store), apart))
        except Exception as error:  # the cell reports it
            if signals.received():  # interrupted code made another error of it
                raise Interrupted from None
            log.debug("left to its cell: %s", error)
    lineups = [lineup for group in groups.values() for lineup, _ in group]
    with stop:
        want(entry.spec.fingerprint for lineup in lineups for wave in lineup for entry in wave)
        for key, group in groups.items():
            _obtain(obtainers[key], _named(group))


def _obtain(obtainer: Obtainer, cells: Sequence[Sequence[Sequence[Entry]]]) -> None:
    obtainer.expect([r for cell in cells for wave in cell for r in requested(wave)])
    for number in range(max(map(len, cells))):
        entries = [entry for cell in cells if number < len(cell) for entry in cell[number]]
        requests = requested([entry for entry in entries if teachable(entry, obtainer.store)])
        try:
            obtainer.obtain(obtainer.missing(requests))
        except CannotWrite:
            raise
        except Exception as error:
            log.warning("not all could be trained together (%s): the cells train what is missing", error)
            return


def _named(cells: Sequence[CellWaves]) -> list[list[list[Entry]]]:
    """Name each training that not all cells share after its cell, since role and model do not identify it."""
    fingerprints = [{entry.spec.fingerprint for wave in lineup for entry in wave} for lineup, _ in cells]
    everywhere = set[str].intersection(*fingerprints)

    def named(entry: Entry, apart: str) -> Entry:
        request = entry.request
        if request is None or not apart or entry.spec.fingerprint in everywhere:
            return entry
        return replace(entry, training=replace(request, name=f"{request.network} {apart}", in_cell=True))

    return [[[named(entry, apart) for entry in wave] for wave in lineup] for lineup, apart in cells]
