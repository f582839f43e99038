"""The rehearsal: what only losses, data and networks can say about a command, asked before anything is made.

Losses are asked of every command. Data and networks are asked here for sweeps, so that no cell fails for its
settings after another has trained; a single run asks them itself before it trains. The data stay loaded.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kdrun import losses
from kdrun.command import plugins, preflight
from kdrun.command.preflight import ComposedCell
from kdrun.plan import check, waves
from kdrun.plan.objective import has_peers, plain
from kdrun.plan.requests import Wanted
from kdrun.plan.trust import refuse_chance
from kdrun.store import Store
from kdrun.training import devices

log = logging.getLogger(__name__)


def problems(verb: str, cells: Sequence[ComposedCell], *, networks: bool) -> list[str]:
    """List what is wrong with the cells' losses and, where asked, with their data and networks."""
    several = len({str(preflight.losses(cell.cfg).keys()) for cell in cells}) > 1
    found = [_wrong_losses(cell, shared=several) if verb == "distill" else [] for cell in cells]
    asked: dict[str, list[str]] = {}
    for cell, wrong in zip(cells, found, strict=True):
        if networks and not wrong:
            key = _matter(cell.cfg)
            if key not in asked:
                asked[key] = _wrong_networks(verb, cell.cfg)
            wrong += asked[key]
    return preflight.gathered(found, cells)


def _wrong_losses(cell: ComposedCell, *, shared: bool) -> list[str]:
    """Let every chosen loss check its numbers; one of weight 0 would not be made, but is to be right as well."""
    found: list[str] = []
    cfg = cell.cfg
    chosen = preflight.losses(cfg)
    for name, node in chosen.items():
        with _gathering(found):
            losses.build({name: {**node, "weight": node.get("weight") or 1.0}})
    with _gathering(found):
        if has_peers(cfg):
            found += _wrong_peers(cell, chosen, shared=shared)
    return found


def _wrong_peers(cell: ComposedCell, chosen: Mapping[str, Mapping[str, Any]], *, shared: bool) -> list[str]:
    """Refuse everything that would give peers a teacher: they have one another."""
    cfg = cell.cfg
    (peers, *_) = (name for name, node in chosen.items() if losses.find(node["use"]).peers)
    others = [name for name, node in chosen.items() if name != peers and losses.find(node["use"]).needs_teacher]
    # in a sweep over methods the other cells read it
    given = (
        [] if shared else [word for word in cell.typed if re.match(r"\+?(teachers?|assistants|generations)\b", word)]
    )
    found = [f"{word}: with loss={peers} students teach each other and have no teacher; leave it out" for word in given]
    if others:
        found.append(
            f"loss=[{','.join(chosen)}]: with {peers} students teach each other and have no teacher, which "
            f"{', '.join(others)} needs; leave one or the other out"
        )
    if not cfg.transfer.labels:
        found.append(f"transfer.labels=false: with loss={peers} nobody would know a label; leave it out")
    return found


def _wrong_networks(verb: str, cfg: DictConfig) -> list[str]:
    HydraConfig.instance().set_config(cfg)
    found: list[str] = []
    if plugins.elsewhere(cfg.hydra):  # the machine that the cells will have is not this one
        cfg = copy.deepcopy(cfg)
        cfg.device, cfg.precision, cfg.compile = "cpu", "fp32", False
    with _gathering(found):
        device = devices.resolve_device(cfg.device)
        wanted, store = Wanted.read(cfg, device), Store(Path(cfg.outputs) / "store")
        entries = [entry for wave in waves.asked(verb, wanted, store) for entry in wave]
        check.check(entries, device)
        refuse_chance(entries, wanted.dataset, store, device)
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
    """Everything that data, networks and what terms compare depend on: cells that agree in it are asked once."""
    blocks = ("dataset", "student", "teacher", "teachers", "assistants", "students", "transfer", "loss")
    parts = {key: plain(cfg[key]) for key in blocks}
    named = {key: str(value) for key, value in cfg.hydra.runtime.choices.items() if not key.startswith("hydra/")}
    parts["teacher"].pop("recipe")
    machine = [cfg.device, cfg.precision, cfg.compile]
    own = [cfg.recipe.protocol, cfg.recipe.batch_size, cfg.generations, cfg.combine]
    return json.dumps([parts, named, machine, own], default=str)
