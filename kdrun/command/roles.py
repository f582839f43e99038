"""Who takes part in a command, each as a configuration of its own with one teacher and one student. Knows no torch.

`teachers=[a,b]` stands in the place of `teacher`, `students=[a,b]` in that of `student`, and every assistant
is a student first and a teacher next: below this, nothing needs to know how many there are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

OWN = ("from", "trust", "seed", "weight", "recipe")  # keys of a teacher or an assistant that are not its network's
Choices = Mapping[str, Any]  # what was chosen of each group of conf/, as Hydra notes it


@dataclass(frozen=True)
class Part:
    """One network of a command."""

    name: str  # as typed in the list; empty for the only one
    model: str  # the choice of conf/model
    cfg: DictConfig  # the command's, with this network as its teacher or student
    init: int = 0  # which draw of initial weights, where the same network stands there more than once


def recipe(verb: str, cfg: DictConfig) -> Any:
    """Return the recipe of what a verb is about: the teacher's, or else the students'."""
    return cfg.teacher.recipe if verb == "train_teacher" else cfg.recipe


def teachers(cfg: DictConfig, choices: Choices) -> list[Part]:
    """Return the teachers: those listed, or the only one."""
    if not cfg.teachers:
        return [Part("", str(choices["teacher"]), cfg)]
    return [_member(cfg, choices, "teachers", name) for name in cfg.teachers]


def assistants(cfg: DictConfig, choices: Choices) -> list[Part]:
    """Return the assistants in the order of the chain, each as a student."""
    return [_member(cfg, choices, "assistants", name) for name in cfg.assistants]


def students(cfg: DictConfig, choices: Choices, *, peers: bool = False) -> list[Part]:
    """Return the students: those listed, or the only one, which among peers has a twin."""
    if cfg.generations:
        network = {key: value for key, value in _raw(cfg.teacher).items() if key not in OWN}
        return [Part("", str(choices["teacher"]), _with(cfg, "student", network), init=1)]
    if not cfg.students:
        only = Part("", str(choices["student"]), cfg)
        if not peers:
            return [only]
        return [Part(only.model, only.model, cfg), Part("twin", only.model, cfg, init=1)]
    parts: list[Part] = []
    for name in cfg.students:
        part = _member(cfg, choices, "students", name)
        same = sum(_raw(other.cfg.student) == _raw(part.cfg.student) for other in parts)
        parts.append(Part(part.name, part.model, part.cfg, init=same))
    return parts


def _member(cfg: DictConfig, choices: Choices, group: str, name: str) -> Part:
    """Put one of several in the place of the single one; recipe keys that were not typed stay as they are there."""
    node = _raw(cfg[group][name])
    place = "teacher" if group == "teachers" else "student"
    own = _with(cfg, place, {key: value for key, value in node.items() if key not in OWN})
    recipe = "teacher.recipe" if group == "teachers" else "recipe"
    for key, value in node.get("recipe", {}).items():
        if value != "${" + f"{recipe}.{key}" + "}":
            OmegaConf.update(own, f"{recipe}.{key}", value)
    if group == "teachers":
        own.teacher["from"], own.teacher.trust = node["from"], node["trust"]
    if "seed" in node and not str(node["seed"]).startswith("${"):
        OmegaConf.update(own, "teacher.seed", node["seed"])
    return Part(name, str(choices[f"model@{group}.{name}"]), own)


def _with(cfg: DictConfig, place: str, network: Mapping[str, Any]) -> DictConfig:
    """Return a copy in which another network stands in this place."""
    own = copy.deepcopy(cfg)
    OmegaConf.set_struct(own, False)
    kept = {key: value for key, value in _raw(own[place]).items() if key in OWN} if place == "teacher" else {}
    kept.pop("recipe", None)
    recipe = own.teacher.recipe if place == "teacher" else None
    own[place] = {**network, **kept}
    if recipe is not None:
        own.teacher.recipe = recipe  # with its types, and the learning rate that goes with its network
    return own


def _raw(node: DictConfig) -> dict[str, Any]:
    """Return a node's values with interpolations as they are written."""
    values = OmegaConf.to_container(node, resolve=False, enum_to_str=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
