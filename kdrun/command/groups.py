"""The configuration folders and the groups of choices in them, registered with Hydra. Does not import torch."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, Node, OmegaConf

from kdrun import config, console
from kdrun.command import plugins

CASTS = ("teachers", "assistants", "students")  # lists of networks, each under its own name
NETWORKS = ("teacher", "student", *CASTS)  # groups whose options are the files of conf/model
GROUPS = ("dataset", *NETWORKS, "augment", "loss", "recipe", "experiment", "budget", "robustness")
LISTS = ("loss", "augment", *CASTS)  # groups of which several may be chosen at once
SCHEMAS = {
    "root": config.Root,
    "evaluate": config.Evaluate,
    "export": config.Export,
    "recipe": config.Recipe,
    "robustness": config.Robustness,
}


def user_dirs(config_dir: str | None = None) -> list[Path]:
    """Return the configuration folders in the order they are searched: ./conf, kdrun's own, --config-dir."""
    dirs = [config.CONF]
    if (own := Path.cwd() / "conf").is_dir() and own.resolve() != config.CONF.resolve():
        dirs.insert(0, own)
    if config_dir:
        dirs.append(Path(config_dir).absolute())
    return dirs


def options(group: str, dirs: Sequence[Path]) -> list[str]:
    """List the choices of a group, from every configuration folder."""
    return sorted({name for folder in folders(group) for name in files(folder, dirs)})


def folders(group: str) -> tuple[str, ...]:
    """Return the folders of conf/ with the choices of a group; teachers that are not networks have a folder as well."""
    return ("model", "teacher") if group == "teacher" else ("model",) if group in NETWORKS else (group,)


def files(folder: str, dirs: Sequence[Path]) -> dict[str, Path]:
    """Return every choice in one of the folders of conf/ by name; for the same name in several, the first file wins."""
    chosen: dict[str, Path] = {}
    for place in (d / folder for d in dirs):
        for file in sorted(place.rglob("*.yaml")):
            chosen.setdefault(file.relative_to(place).with_suffix("").as_posix(), file)
    return dict(sorted(chosen.items()))


def register(dirs: Sequence[Path]) -> None:
    """Register the schemas, the groups made from conf/model, the resolvers and the user's folders with Hydra."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(group="schema", name=name, node=schema, provider="kdrun")
    for name in options("student", dirs):
        for group in ("student", "teacher"):  # one model file serves both groups
            node = {"defaults": [{f"/model@{group}": name}]}
            store.store(group=group, name=name, node=node, package="_global_", provider="kdrun")
        for group, settings in _own_settings().items():
            node = {"defaults": [{"/model@_here_": name}], **settings}
            store.store(group=group, name=name, node=node, package=f"{group}.{name}", provider="kdrun")
    resolvers()
    plugins.register()

    class OwnConf(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            before, after = dirs[: dirs.index(config.CONF)], dirs[dirs.index(config.CONF) + 1 :]
            for folder in before:
                search_path.prepend("kdrun", f"file://{folder}")
            for folder in after:
                search_path.append("kdrun", f"file://{folder}")

    Plugins.instance().register(OwnConf)


def _own_settings() -> dict[str, dict[str, Any]]:
    """Return the keys that each of several networks has besides its model's; defaults refer to the single network."""
    names = [field.name for field in fields(config.Recipe)]
    taught = {key: "${teacher.recipe." + key + "}" for key in names}
    learned = {key: "${recipe." + key + "}" for key in names}
    return {
        "teachers": {"from": None, "trust": False, "seed": "${teacher.seed}", "weight": 1.0, "recipe": taught},
        "assistants": {"seed": "${teacher.seed}", "recipe": learned},
        "students": {},
    }


def resolvers() -> None:
    """Register the resolvers ${kdrun.…} of the configuration files."""
    OmegaConf.register_new_resolver("kdrun.lr", _learning_rate, replace=True)
    OmegaConf.register_new_resolver("kdrun.scaled", _scaled, replace=True)
    OmegaConf.register_new_resolver("kdrun.published", _published, replace=True)
    OmegaConf.register_new_resolver("kdrun.where", _where, replace=True)
    OmegaConf.register_new_resolver("kdrun.folder", lambda _root_: str(output_folder(_root_.hydra)), replace=True)
    OmegaConf.register_new_resolver("kdrun.verbose", _verbose, replace=True)
    OmegaConf.register_new_resolver("kdrun.shown", _shown, replace=True)
    OmegaConf.register_new_resolver("kdrun.uid", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True)


def _verbose(*, _root_: DictConfig) -> bool:
    """Return the default of verbose: KDRUN_VERBOSE, unless quiet is typed."""
    typed = os.environ.get("KDRUN_VERBOSE", "").lower()
    if typed not in ("", "false", "true", "0", "1"):
        raise ValueError(f"KDRUN_VERBOSE={typed}: choose true or false")
    return typed in ("true", "1") and not _root_.get("quiet")


def _shown(*, _root_: DictConfig) -> int:
    """Return the level from which log lines reach the terminal; the log file has all."""
    if _root_.get("verbose"):
        return console.DETAIL
    if _root_.get("quiet"):
        return logging.WARNING
    sweep = "MULTIRUN" in str(OmegaConf.select(_root_, "hydra.mode"))
    # one line for each cell of a sweep; cells of measuring verbs print their tables
    return console.RESULT if sweep and "recipe" in _root_ else logging.INFO


def output_folder(hydra: Any) -> Path:
    """Return the folder that Hydra chose for a run, with its literal name: a ${…} in it is not resolved."""
    return Path(str(hydra.runtime._get_node("output_dir")._value()))


def _published(key: str, usual: float, *, _root_: DictConfig) -> float:
    """Return a loss's published setting for the pair of the chosen experiment, or else the usual one.

    A loss writes `weight: ${kdrun.published:review_kd.weight,5.0}`, and an experiment
    `published: {review_kd: {weight: 0.6}}`.
    """
    return float(OmegaConf.select(_root_, f"published.{key}", default=usual))


def _where(value: Any, others: Mapping[Any, Any], usual: Any) -> Any:
    """Return the entry of `others` for a setting's value, or else the usual one.

    An experiment writes `epochs: ${kdrun.where:${transfer.fraction},{0.03:100},30}`.
    """
    return others.get(value, usual)


def _scaled(usual: Any, epochs: int, *, _parent_: DictConfig) -> Any:
    """Return a recipe's warm-up or milestones, written for `epochs` epochs, scaled to the number that is set.

    A recipe writes `warmup_epochs: ${kdrun.scaled:3,60}` and `milestones: ${kdrun.scaled:[150,180,210],240}`. A longer
    training keeps the warm-up; milestones are scaled for longer and shorter ones.
    """
    share = float(_parent_.epochs) / epochs
    if isinstance(usual, int | float):
        return usual if share >= 1 else round(usual * share, 6)
    return sorted({max(1, round(milestone * share)) for milestone in usual})


def _learning_rate(usual: float, others: Mapping[str, float], *, _node_: Node, _root_: DictConfig) -> float:
    """Return a recipe's learning rate: the entry of `others` for its network, or else the usual one.

    A recipe writes `lr: ${kdrun.lr:0.05,{mobilenet.MobileNetV2:0.01}}`, with networks named as in `use`.
    """
    network = _root_.teacher if str(_node_._get_full_key(None)).startswith("teacher.") else _root_.student
    return float(others.get(network.use, usual))
