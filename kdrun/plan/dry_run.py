"""The dry run: build losses, and for sweeps load data and build networks, before anything is trained or written.

This way no cell fails because of its settings after another has trained; a single run checks data and networks itself
before it trains. The data stay loaded. Whether folders and classes exist can be checked without decoding images or
building networks, so missing ones are listed together with all other problems of a command.
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

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdrun import losses, own
from kdrun.command import plugins, preflight, roles
from kdrun.command.composing import ComposedCell, let_values_see
from kdrun.losses import contract
from kdrun.models import external
from kdrun.plan import check
from kdrun.plan.objective import has_peers
from kdrun.plan.requests import RequestBuilder
from kdrun.plan.trust import refuse_chance
from kdrun.plan.waves import waves
from kdrun.store import Store
from kdrun.tracking.base import find as find_tracker
from kdrun.training import devices

log = logging.getLogger(__name__)


def problems(verb: str, cells: Sequence[ComposedCell], *, losses: bool, networks: bool) -> list[str]:
    """Return what is wrong with the cells' trackers, and as requested with their losses, data and networks."""
    several = len({str(cell.values["loss"].keys()) for cell in cells}) > 1
    by_cell = [_wrong_losses(verb, cell, shared=several) if losses else [] for cell in cells]
    checked: dict[str, list[str]] = {}
    for cell, cell_problems in zip(cells, by_cell, strict=True):
        if own.is_own(cell.cfg.tracker):
            with _gathering(cell_problems):
                find_tracker(cell.cfg.tracker)
    for cell, cell_problems in zip(cells, by_cell, strict=True):
        if networks and not cell_problems:
            key = _checked_settings(cell)
            if key not in checked:
                checked[key] = _wrong_networks(verb, cell)
            cell_problems += checked[key]
    return preflight.gathered(by_cell, cells)


def _wrong_losses(verb: str, cell: ComposedCell, *, shared: bool) -> list[str]:
    """Let every chosen loss check its settings, including losses of weight 0, which a training would omit."""
    problems: list[str] = []
    chosen = {name: node for name, node in cell.values["loss"].items() if name != "ce"}
    for name, node in chosen.items():
        with _gathering(problems):
            contract.refuse_formulas(losses.build({name: {**node, "weight": node.get("weight") or 1.0}}))
    with _gathering(problems):
        if verb == "distill" and has_peers(cell.values):
            problems += _wrong_peers(cell, chosen, shared=shared)
    return problems


def _wrong_peers(cell: ComposedCell, chosen: Mapping[str, Mapping[str, Any]], *, shared: bool) -> list[str]:
    """Return a problem for each setting that peers, which teach each other, cannot have: a teacher, or no labels."""
    (peers, *_) = (name for name, node in chosen.items() if losses.find(node["use"]).peers)
    others = [name for name, node in chosen.items() if name != peers and losses.find(node["use"]).needs_teacher]
    pattern = r"\+?(teachers?|assistants|generations)\b"
    words = [word for word in cell.typed if re.match(pattern, word) and not shared]  # if shared, other cells read it
    problems = [
        f"{word}: with loss={peers} students teach each other and have no teacher; leave it out" for word in words
    ]
    if others:
        problems.append(
            f"loss=[{','.join(chosen)}]: with {peers} students teach each other and have no teacher, which "
            f"{', '.join(others)} needs; leave out one of the two"
        )
    if not cell.cfg.transfer.labels:
        problems.append(
            f"transfer.labels=false: with loss={peers} there would be no labels to learn from; leave it out"
        )
    return problems


def absent(verb: str, cells: Sequence[ComposedCell], *, layout: bool) -> list[str]:
    """Return which image folders and which classes of the user's own do not exist.

    With `layout`, also check the files in each folder, without logging anything about them.
    """
    by_cell = []
    checked: dict[str, list[str]] = {}
    for cell in cells:
        with contextlib.suppress(OmegaConfBaseException):  # a value that cannot be resolved is reported elsewhere
            choices = cell.cfg.hydra.runtime.choices
            targets = {}
            if verb != "train_baseline":
                parts = roles.teachers(cell.cfg, choices) if verb == "distill" else [roles.Part("", "", cell.cfg)]
                targets = {f"teachers.{p.name}" if p.name else "teacher": p.cfg.teacher for p in parts}
            if verb != "train_teacher":
                parts = roles.students(cell.cfg, choices) if verb == "distill" else [roles.Part("", "", cell.cfg)]
                targets |= {f"students.{p.name}" if p.name else "student": p.cfg.student for p in parts}
            typed = {place: str(node.get("target")) for place, node in targets.items() if _external(node)}
            settings = cell.values["dataset"]
            key = json.dumps([typed, settings], default=str)
            if key not in checked:
                checked[key] = [*_absent_images(settings, layout), *_absent_classes(typed)]
            by_cell.append(checked[key])
    return list(dict.fromkeys(problem for problems in by_cell for problem in problems))


def _external(node: DictConfig) -> bool:
    return node.use == roles.EXTERNAL and not OmegaConf.is_missing(node, "target")


def _absent_images(settings: Mapping[str, Any], layout: bool) -> list[str]:
    problems: list[str] = []
    if settings["use"] != roles.FOLDER or settings["root"] is None:
        return problems
    from kdrun.data import layout as layouts
    from kdrun.data import listing

    with _gathering(problems):
        places = listing.roots(settings["root"], "dataset.root")
        if layout:
            logging.disable()
            try:
                layouts.classified(places, test_fraction=settings["test_fraction"])
            finally:
                logging.disable(logging.NOTSET)
    return problems


def _absent_classes(typed: Mapping[str, str]) -> list[str]:
    problems: list[str] = []
    for place, target in typed.items():
        wrong: list[str] = []
        with _gathering(wrong):
            external.resolve_target(target)
        problems += [f"{place}=external: {why}" for why in wrong]
    return problems


def _wrong_networks(verb: str, cell: ComposedCell) -> list[str]:
    cfg, values = cell.cfg, cell.values
    let_values_see(cfg)
    problems: list[str] = []
    if plugins.elsewhere(cfg.hydra):  # the cells run on other machines, which may have other devices
        anywhere = {"device": "cpu", "precision": "fp32", "compile": False}
        cfg, values = copy.deepcopy(cfg), {**values, **anywhere}
        cfg.update(anywhere)
    with _gathering(problems):
        device = devices.resolve_device(cfg.device)
        builder = RequestBuilder.read(verb, cfg, cfg.hydra.runtime.choices, device, values)
        store = Store(Path(cfg.outputs) / "store")
        entries = [entry for wave in waves(builder, store) for entry in wave]
        check.check(entries, device)
        refuse_chance(entries, builder.dataset, store, device)
    return problems


@contextlib.contextmanager
def _gathering(problems: list[str]) -> Iterator[None]:
    """Add a ValueError to `problems`; any other error is left to the run, which logs it with its traceback."""
    try:
        yield
    except ValueError as error:
        problems.append(str(error))
    except Exception as error:
        log.debug("left for the run: %r", error)


def _checked_settings(cell: ComposedCell) -> str:
    """Return all settings that data, networks and losses depend on: cells that share them are checked once."""
    values, choices = cell.values, cell.cfg.hydra.runtime.choices
    keys = ("dataset", "student", "teacher", "teachers", "assistants", "students", "transfer", "loss", "generations",
            "combine", "device", "precision", "compile")  # fmt: skip
    parts = {key: values[key] for key in keys}
    parts["teacher"] = {key: value for key, value in values["teacher"].items() if key != "recipe"}
    named = {key: str(value) for key, value in choices.items() if not key.startswith("hydra/")}
    recipe = [values["recipe"][key] for key in ("protocol", "batch_size")]
    return json.dumps([parts, named, recipe], default=str)
