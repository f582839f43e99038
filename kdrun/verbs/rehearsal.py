"""The rehearsal: what only losses, data and networks can say about a command, asked before anything is made.

Losses are asked of every command. Data and networks are asked here for sweeps, so that no cell fails for its
settings after another has trained; a single run asks them itself before it trains. The data stay loaded.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kdrun import losses, preflight
from kdrun.preflight import Cell
from kdrun.store import Store
from kdrun.training import devices
from kdrun.verbs import planning
from kdrun.verbs.wanted import Wanted, plain

log = logging.getLogger(__name__)


def problems(verb: str, cells: Sequence[Cell], *, networks: bool) -> list[str]:
    """List what is wrong with the cells' losses and, where asked, with their data and networks."""
    found = [_wrong_losses(cell.cfg) if verb == "distill" else [] for cell in cells]
    asked: dict[str, list[str]] = {}
    for cell, wrong in zip(cells, found, strict=True):
        if networks:
            key = _matter(cell.cfg)
            if key not in asked:
                asked[key] = _wrong_networks(verb, cell.cfg)
            wrong += asked[key]
    return preflight.gathered(found, cells)


def _wrong_losses(cfg: DictConfig) -> list[str]:
    """Let every chosen loss check its numbers; one of weight 0 would not be made, but is to be right as well."""
    found: list[str] = []
    with _gathering(found):
        for name, node in preflight.losses(cfg).items():
            with _gathering(found):
                losses.build({name: {**node, "weight": node.get("weight") or 1.0}})
    return found


def _wrong_networks(verb: str, cfg: DictConfig) -> list[str]:
    HydraConfig.instance().set_config(cfg)
    found: list[str] = []
    with _gathering(found):
        wanted = Wanted.read(cfg, devices.resolve_device(cfg.device))
        if verb != "train_teacher":
            with _gathering(found):
                planning.check([wanted.baseline(cfg.seed)])
        if verb != "train_baseline":
            with _gathering(found):
                if wanted.pinned(Store(Path(cfg.outputs) / "store")) is None:
                    planning.check([wanted.teacher()])
    return found


@contextlib.contextmanager
def _gathering(found: list[str]) -> Iterator[None]:
    """Gather what is wrong; anything but bad input is left for the run to meet, with its log."""
    try:
        yield
    except ValueError as error:
        found.append(str(error))
    except Exception as error:
        log.debug("left for the run: %r", error)


def _matter(cfg: DictConfig) -> str:
    """Everything that data and networks depend on: cells that agree in it are asked once."""
    parts = {key: plain(cfg[key]) for key in ("dataset", "student", "teacher", "transfer")}
    named = {key: str(cfg.hydra.runtime.choices[key]) for key in ("dataset", "student", "teacher")}
    parts["teacher"].pop("recipe")
    return json.dumps([parts, named, cfg.device, cfg.precision, cfg.recipe.protocol], default=str)
