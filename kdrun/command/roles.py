"""The networks of a command, each as a configuration of its own with one teacher and one student.

`teachers=[a,b]` replaces `teacher`, `students=[a,b]` replaces `student`, and every assistant is a student first and
then a teacher: the code that uses these configurations need not know how many networks there are. Does not import
torch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kdrun.spec import ANSWERS

# keys of a teacher or an assistant that are not its network's
OWN = ("from", "trust", "seed", "weight", "recipe", "augment", "table_gb", "bank")
EXTERNAL, FOLDER = "external.External", "folder.folder"  # the value of `use` of a user's own network and data set
Choices = Mapping[str, Any]  # group of conf/ -> the choice made, as Hydra records it


@dataclass(frozen=True)
class Part:
    """One network of a command."""

    name: str  # as typed in the list; empty for the only one
    model: str  # the choice of conf/model
    cfg: DictConfig  # the command's, with this network as its teacher or student
    init: int = 0  # which draw of initial weights, if the same network is listed more than once


def of_ones_own(cfg: DictConfig) -> bool:
    """Return whether a command that trains uses a class or an image folder of the user's own, which may be missing."""
    networks = [values(cfg[group]) for group in ("teacher", "student", "teachers", "students")]
    return cfg.dataset.use == FOLDER or EXTERNAL in str(networks)


def answered(cfg: DictConfig) -> bool:
    """Return whether the single teacher is a file of another model's answers."""
    return not cfg.teachers and cfg.teacher.get("use") == ANSWERS


def unanswered(verb: str, cfg: DictConfig) -> list[str]:
    """Return why a verb cannot use a teacher that is a file of answers, one sentence each."""
    if not answered(cfg) or verb == "train_baseline":
        return []
    if verb == "train_teacher":
        return ["teacher=answers: is a file of answers, and there is nothing to train; kdrun distill reads it"]
    problems = []
    if cfg.generations:
        problems.append(
            f"generations={cfg.generations}: teacher=answers is a file, with no network to train again; leave "
            "generations out"
        )
    if cfg.teacher.file is None:
        problems.append(
            "teacher=answers: which answers? Type teacher.file=FILE, a .safetensors, .npz, .csv or .parquet file "
            "(docs/own-data.md)"
        )
    return problems


def recipe(verb: str, cfg: DictConfig) -> Any:
    """Return the recipe that a verb is about: the teacher's for `train teacher`, otherwise the students'."""
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
    """Return the students: those listed, or the only one. With `peers`, which need two, the only one gets a twin."""
    if cfg.generations:
        network = {key: value for key, value in values(cfg.teacher).items() if key not in OWN}
        return [Part("", str(choices["teacher"]), _with(cfg, "student", network), init=1)]
    if not cfg.students:
        only = Part("", str(choices["student"]), cfg)
        if not peers:
            return [only]
        return [Part(only.model, only.model, cfg), Part("twin", only.model, cfg, init=1)]
    parts: list[Part] = []
    for name in cfg.students:
        part = _member(cfg, choices, "students", name)
        same = sum(values(other.cfg.student) == values(part.cfg.student) for other in parts)
        parts.append(Part(part.name, part.model, part.cfg, init=same))
    return parts


def clashing(cfg: DictConfig, choices: Choices) -> list[str]:
    """Return which networks of a distillation cannot be combined, one sentence each.

    Generations exclude lists of other networks. Teachers and students need the same protocol: if a teacher was trained
    on the validation images, nothing selected on them could be trusted.
    """
    lists = {key: list(cfg[key]) for key in ("students", "assistants")} | {"teachers": list(cfg.teachers)[1:]}
    problems = [
        f"generations={cfg.generations} with {key}: every generation has the teacher's architecture, and is taught by "
        f"the "
        f"generation before; leave {key} out"
        for key, names in lists.items()
        if names and cfg.generations
    ]
    small = {"": cfg.recipe} | {f"assistants.{part.name}.": part.cfg.recipe for part in assistants(cfg, choices)}
    large = {
        f"teachers.{part.name}." if part.name else "teacher.": part.cfg.teacher.recipe
        for part in teachers(cfg, choices)
        if part.cfg.teacher["from"] is None
    }
    return problems + [
        f"{own}recipe.protocol={recipe.protocol} and {other}recipe.protocol={above.protocol}: must agree; type "
        "recipe.protocol alone"
        for own, recipe in small.items()
        for other, above in large.items()
        if recipe.protocol != above.protocol
    ]


def _member(cfg: DictConfig, choices: Choices, group: str, name: str) -> Part:
    """Return one of several networks as the single one, with the single one's recipe except for keys typed for it."""
    node = values(cfg[group][name])
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
    """Return a copy of the configuration with another network as its teacher or student."""
    own = copy.deepcopy(cfg)
    OmegaConf.set_struct(own, False)
    kept = {key: value for key, value in values(own[place]).items() if key in OWN} if place == "teacher" else {}
    kept.pop("recipe", None)
    recipe = own.teacher.recipe if place == "teacher" else None
    own[place] = {**network, **kept}
    if recipe is not None:
        own.teacher.recipe = recipe  # typed, and with the learning rate that depends on the network
    return own


def values(node: DictConfig, *, resolve: bool = False) -> dict[str, Any]:
    """Return a node as a plain dictionary, with its interpolations as they are written unless `resolve` is set."""
    content = OmegaConf.to_container(node, resolve=resolve, enum_to_str=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
