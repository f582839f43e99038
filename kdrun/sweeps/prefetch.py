"""What all cells of a sweep want, trained before the first of them runs: what they share is computed once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kdrun.command.invocation import Invocation
from kdrun.plan.requests import RequestBuilder, workshop
from kdrun.plan.waves import Entry, requested, teachable, waves
from kdrun.store import CannotWrite
from kdrun.training.obtain import Workshop
from kdrun.training.stop import Interrupted, StopFlag

log = logging.getLogger(__name__)
Cast = tuple[list[list[Entry]], str]  # the waves of one cell, and what sets it apart


def prefetch(invocation: Invocation, cells: Sequence[tuple[DictConfig, str]]) -> None:
    """Obtain the trainings of all cells, each a configuration and what sets it apart, wave by wave.

    What fails here is logged and left to its own cell, which trains alone and says what is wrong. Raises
    Interrupted where a signal came, and SystemExit where the disk is full: no cell could do better.
    """
    with StopFlag() as stop:
        shops: dict[str, Workshop] = {}
        casts: dict[str, list[Cast]] = {}
        for cfg, apart in cells:
            HydraConfig.instance().set_config(cfg)  # ${hydra:…} may stand in a value
            key = repr([cfg.outputs, cfg.device, cfg.workers, cfg.force, cfg.tracker])
            try:
                folder = Path(str(cfg.hydra.sweep.dir)).absolute()
                shop = shops.setdefault(key, workshop(invocation, cfg, folder, stop))
                builder = RequestBuilder.read(invocation.verb, cfg, cfg.hydra.runtime.choices, shop.device)
                casts.setdefault(key, []).append((waves(builder, shop.store), apart))
            except ValueError as error:  # the cell will say so itself
                log.debug("left to its cell: %s", error)
        for key, group in casts.items():
            _obtain(shops[key], [lineup for lineup, _ in _named(group)])


def _obtain(shop: Workshop, casts: Sequence[Sequence[Sequence[Entry]]]) -> None:
    shop.expect([r for cast in casts for wave in cast for r in requested(wave)])
    for number in range(max(map(len, casts))):
        entries = [entry for cast in casts if number < len(cast) for entry in cast[number]]
        requests = requested([entry for entry in entries if teachable(entry, shop.store)])
        try:
            shop.obtain(shop.missing(requests))
        except Interrupted:
            log.warning("interrupted: everything so far is saved; the same command resumes")
            raise
        except CannotWrite as error:
            log.error("kdrun: %s", error)
            raise SystemExit(3) from None
        except Exception as error:
            log.warning("not all could be trained together (%s): the cells train what is missing", error)
            return


def _named(casts: Sequence[Cast]) -> list[Cast]:
    """Name each training that not all cells want after its cell: role and model do not tell it from the others."""
    fingerprints = [{entry.spec.fingerprint for wave in lineup for entry in wave} for lineup, _ in casts]
    everywhere = set[str].intersection(*fingerprints)

    def named(entry: Entry, apart: str) -> Entry:
        request = entry.request
        if request is None or not apart or entry.spec.fingerprint in everywhere:
            return entry
        name = request.name or f"{request.role} {request.model}"
        return replace(entry, training=replace(request, name=f"{name} {apart}"))

    return [([[named(entry, apart) for entry in wave] for wave in lineup], apart) for lineup, apart in casts]
