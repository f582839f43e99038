"""Hydra with a loader that composes each set of choices only once per command. Does not import torch.

Hydra's own loader composes everything again each time a command reads its configuration (three times), and each time
a sweep reads one of its cells (three times per cell); each takes a tenth of the time of `import torch`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import omegaconf.base
import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf._utils import get_omega_conf_dumper

from kdrun import config

SEARCHPATH = "hydra.searchpath"  # the one value that decides what can be chosen


@dataclass(frozen=True)
class ComposedCell:
    """One composed command, or one cell of a sweep: the configuration, Hydra's part included, and its overrides."""

    cfg: DictConfig
    typed: list[str]
    values: dict[str, Any]  # the configuration without Hydra's part, as plain values
    lasting: bool  # whether these values are the same whenever they are resolved
    folders: dict[str, str]  # hydra.run.dir and hydra.sweep.dir, by "run" and "sweep"


class Loader(ConfigLoaderImpl):
    """Hydra's loader, with a cache: each set of choices is composed once, and values are set in a copy of the result.

    Hydra, too, sets values after all choices are composed, so the result is the same. A sweep's cells that the
    preflight has composed and kept are not composed again. Make one loader per command, after the command's
    configuration folders are registered, because files are read only once.
    """

    def __init__(self) -> None:
        super().__init__(create_config_search_path(search_path_dir=str(config.CONF)))
        self._bases: dict[tuple[str | None, ...], bytes] = {}
        self._parsed: dict[str, Override] = {}
        self._cells: dict[tuple[str, ...], ComposedCell] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the cells: a launcher that pickles the loader does so once for each of them."""
        return {**vars(self), "_cells": {}}

    def keep(self, cells: Sequence[ComposedCell]) -> None:
        """Keep composed cells of a sweep, for which `load_sweep_config` returns the same configuration, not a copy.

        Not kept are cells with the same overrides, because each needs a configuration of its own, and those that Hydra
        would compose differently: with another search path, or with values that change, such as ${now:…}.
        """
        words = [tuple(word for word in cell.typed if not self._parse(word).is_hydra_override()) for cell in cells]
        times = Counter(words)
        for own, cell in zip(words, cells, strict=True):
            lasting = cell.lasting and not any(self._parse(word).key_or_group == SEARCHPATH for word in cell.typed)
            if times[own] == 1 and lasting:
                self._cells[own] = cell

    def kept(self, words: Sequence[str]) -> ComposedCell | None:
        """Return the cell with these overrides, without Hydra's own, if it was kept."""
        return self._cells.get(tuple(words))

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the configuration of a sweep's cell, composed by the preflight if it was kept."""
        if (cell := self.kept(sweep_overrides)) is None:
            return super().load_sweep_config(master_config, sweep_overrides)
        cfg = cell.cfg
        hydras: Any = OmegaConf.to_container(master_config.hydra.overrides.hydra)  # as typed: not resolved
        _record(cfg, [self._parse(word) for word in [*hydras, *sweep_overrides]])
        cfg.hydra.mode = master_config.hydra.mode
        OmegaConf.copy_cache(from_config=master_config, to_config=cfg)
        return cfg

    def _load_configuration_impl(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        parsed = [self._parse(word) for word in overrides]
        if validate_sweep_overrides:
            self.validate_sweep_overrides_legal(overrides=parsed, run_mode=run_mode, from_shell=from_shell)
        fixed = [one for one in parsed if not one.is_sweep_override()]
        choices = [one for one in fixed if self._chooses(one)]
        cfg = self._base(config_name, [str(one.input_line) for one in choices], run_mode)
        self._apply_overrides_to_config([one for one in fixed if not self._chooses(one)], cfg)
        _record(cfg, parsed)
        return cfg

    def _parse(self, word: str) -> Override:
        if word not in self._parsed:
            self._parsed[word] = OverridesParser.create().parse_override(word)
        return self._parsed[word]

    def _chooses(self, override: Override) -> bool:
        """Return whether an override chooses what is composed, by Hydra's own rule."""
        key = override.key_or_group
        chosen = not isinstance(override.value(), dict) and self.repository.group_exists(key)
        return chosen or key == SEARCHPATH

    def _base(self, config_name: str | None, choices: list[str], run_mode: RunMode) -> DictConfig:
        """Return a copy of the configuration that these choices compose to."""
        key = (config_name, str(run_mode), *choices)
        if key not in self._bases:
            cfg = super()._load_configuration_impl(config_name, choices, run_mode)
            self._bases[key] = pickle.dumps(cfg)
        base: DictConfig = pickle.loads(self._bases[key])
        return base


def copied(cfg: DictConfig) -> DictConfig:
    """Return a copy of a configuration; pickle makes it five times as fast as copy.deepcopy."""
    copy: DictConfig = pickle.loads(pickle.dumps(cfg))
    return copy


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """OmegaConf's dumper on top of libyaml, if it is installed: ten times as fast as the one in Python."""


_Dumper.add_representer(str, get_omega_conf_dumper().str_representer)


def as_yaml(content: Any) -> str:
    """Return a configuration's content as YAML like OmegaConf.to_yaml, but without copying the configuration."""
    text: str = yaml.dump(content, allow_unicode=True, sort_keys=False, Dumper=_Dumper)
    return text


def without_hydra(cfg: DictConfig) -> DictConfig:
    """Return a copy of a configuration without its `hydra` node, as verbs receive it."""
    visible = copied(cfg)
    with read_write(visible), open_dict(visible):
        del visible["hydra"]
    return visible


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration without its `hydra` node as plain values, interpolations resolved."""
    values: dict[str, Any] = {}
    for key in map(str, cfg):
        if key != "hydra":
            value = cfg[key]
            if OmegaConf.is_config(value):
                value = OmegaConf.to_container(value, resolve=True, enum_to_str=True)
            values[key] = value
    return values


def let_values_see(cfg: DictConfig) -> None:
    """Let ${hydra:…} refer to this configuration's `hydra` node."""
    HydraConfig.instance().cfg = cfg  # type: ignore[assignment]


def _record(cfg: DictConfig, overrides: Sequence[Override]) -> None:
    """Record the typed overrides, and what is derived from them, in the `hydra` node, as Hydra does."""
    task = [one for one in overrides if not one.is_hydra_override()]
    job = cfg.hydra.job
    with open_dict(cfg.hydra):
        cfg.hydra.overrides.hydra = [one.input_line for one in overrides if one.is_hydra_override()]
        cfg.hydra.overrides.task = [one.input_line for one in task]
        for name in job.env_copy:
            job.env_set[name] = os.environ[name]
    how = job.config.override_dirname
    job.override_dirname = get_overrides_dirname(
        overrides=task, kv_sep=how.kv_sep, item_sep=how.item_sep, exclude_keys=how.exclude_keys
    )


_omegaconf: Any = omegaconf.base
_parse = functools.lru_cache(maxsize=4096)(_omegaconf.parse)


@contextlib.contextmanager
def hydra_with(loader: Loader) -> Iterator[Hydra]:
    """Yield Hydra with this loader, which `hydra.compose` uses as well; restore Hydra's global state afterwards.

    Inside the context, OmegaConf parses each distinct ${…} once instead of at every access: cells share most of them.
    """
    version.setbase("1.3")
    before = dict(vars(GlobalHydra.instance()))
    GlobalHydra.instance().clear()
    hydra = Hydra(task_name="kdrun", config_loader=loader)
    GlobalHydra.instance().initialize(hydra)
    parse, _omegaconf.parse = _omegaconf.parse, _parse
    try:
        yield hydra
    finally:
        _omegaconf.parse = parse
        vars(GlobalHydra.instance()).update(before)
