"""The preflight: compose the configuration before anything is written to disk, and collect all of its errors.

Hydra creates a folder first, stops at the first error and exits 1 for any error. Here the choices are composed once,
every value is checked against the result, and valid values are set, so that everything wrong with a command, or with
all cells of a sweep, is listed at once. Does not import torch.
The module is long because a cell's checks share what is composed for it, and stand in the order in which they run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from tqdm import tqdm

from kdrun import checks, config, torchrun
from kdrun.command import groups, overrides, plugins, roles, swept, unread
from kdrun.command.composing import ComposedCell, Loader, copied, hydra_with, let_values_see, without_hydra

SWEEPER = "hydra/sweeper"
# ValueError: raised by Hydra for a choice that is no word; YAMLError: raised for an invalid file of the user's;
# AttributeError: raised by OmegaConf for nested keys below a null
NOT_COMPOSED = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, AttributeError)


@dataclass
class Checked:
    """A checked command line: the cells that compose, and everything that is wrong with it."""

    cells: list[ComposedCell]
    problems: list[str]
    ignored: list[str] = field(default_factory=list)  # a note on the settings that the verb never reads
    searched: bool = False  # the cells are the ends of a search's space; which cells it tries is not known yet


def check(
    verb: str, words: Sequence[str], *, sweep: bool, dirs: Sequence[Path], loader: Loader | None = None
) -> Checked:
    """Compose the command, or every cell of a sweep, and gather everything that is wrong."""
    if unnamable := _unnamable():
        return Checked([], [unnamable])
    read = [overrides.parse(word) for word in words]
    problems = [one for one in read if isinstance(one, str)]
    parsed = [one for one in read if isinstance(one, Override)]
    cells: list[ComposedCell] = []
    of_cells: list[list[str]] = []
    loader = loader or Loader()
    with hydra_with(loader):
        composer = _Composer(verb, dirs)
        expanded, searched = _cells(composer, parsed, sweep, problems)
        replaced = swept.replaced(parsed) if sweep else []
        bar = tqdm(expanded, "checking the cells", unit="", delay=0.5, leave=False, disable=None)
        for number, cell in enumerate(bar):
            composed, wrong = composer.cell(cell, number if sweep else None, replaced)
            of_cells.append(wrong)
            cells += [] if composed is None else [composed]
        if sweep and not searched and not replaced:
            loader.keep(cells)
    every = list(dict.fromkeys([*problems, *gathered(of_cells, cells)]))
    return Checked(cells, every, unread.note(verb, parsed), searched)


def _unnamable() -> str | None:
    """Return a problem if the working folder's name has an unclosed ${, which Hydra cannot record, or None."""
    try:
        OmegaConf.create({"cwd": os.getcwd()})
    except OmegaConfBaseException:
        return f"{os.getcwd()}: the name of this folder contains ${{ without }}; run the command in another folder"
    return None


def gathered(problems: Sequence[Sequence[str]], cells: Sequence[ComposedCell]) -> list[str]:
    """Join the problems of all cells: a problem of only some cells names the first one by its distinct overrides."""
    everywhere = set[str].intersection(*map(set, problems)) if problems else set()
    if len(problems) != len(cells):  # some cells do not compose, so their overrides are not known
        return [problem for wrong in problems for problem in wrong]
    shared = set[str].intersection(*(set(c.typed) for c in cells)) if cells else set()
    joined: dict[str, list[str]] = {}
    for wrong, cell in zip(problems, cells, strict=True):
        for problem in wrong:
            joined.setdefault(problem, []).append(" ".join(w for w in cell.typed if w not in shared))
    lines = []
    for problem, where in joined.items():
        more = f" and {len(where) - 1} more" if len(where) > 1 else ""
        lines.append(problem if problem in everywhere else f"{problem} (in the cell {where[0]}{more})")
    return lines


def _cells(
    composer: _Composer, parsed: Sequence[Override], sweep: bool, problems: list[str]
) -> tuple[list[list[Override]], bool]:
    """Expand a sweep into one list of overrides per cell, with Hydra's own sweeper, and return whether it is a search.

    A search chooses its cells only as it runs, so the ends of its search space are checked in their place.
    """
    several = [o for o in parsed if o.is_sweep_override()]
    if sweep:
        in_vain = {o.input_line: problem for o in several if (problem := unread.by_verb(composer.verb, o))}
        problems += in_vain.values()
        parsed = [o for o in parsed if o.input_line not in in_vain]
    if sweep and (twice := swept.twice(parsed)):
        problems += twice
        return [], False
    if not sweep:
        verb = composer.verb.replace("_", " ")
        for override in several:
            key, _, values = overrides.typed(override).partition("=")
            one = f" type '{key}=[{values}]' for a list, or" if _takes_a_list(composer, override) else ""
            problems.append(f"{key}={values}: several values:{one} type kdrun {verb} -m … for a sweep")
        return [[o for o in parsed if not o.is_sweep_override()]], False
    loader = GlobalHydra.instance().config_loader()
    base, _ = composer.base([o for o in parsed if overrides.is_choice(o) and not o.is_sweep_override()])
    searched = base is not None and plugins.searches(base.hydra)
    searched |= any(plugins.missing(overrides.group(o), str(o.value())) for o in parsed if o.key_or_group == SWEEPER)
    preset = dict(base.hydra.sweeper.params or {}) if base is not None and "params" in base.hydra.sweeper else {}
    words = [*(f"{key}={value}" for key, value in preset.items()), *(o.input_line or "" for o in parsed)]
    everything = OverridesParser.create(config_loader=loader).parse_overrides(words)
    everything = list({o.get_key_element(): o for o in everything}.values())  # a typed key replaces the preset's
    valid = []
    for override in everything:
        if problem := (swept.wrong_space(override) if searched else swept.wrong_sweep(override, composer.dirs)):
            problems.append(problem)
        else:
            valid.append(override)
    if not searched and (many := swept.too_many(valid)):
        problems.append(many)
        return [], False
    cells = swept.ends(valid) if searched else BasicSweeper.split_arguments(valid, None)[0]
    parse = functools.lru_cache(maxsize=None)(overrides.parse)  # cells share most of their words
    read = [[parse(word) for word in cell] for cell in cells]  # Hydra may have lost the quotes of a value
    problems += dict.fromkeys(one for cell in read for one in cell if isinstance(one, str))
    return [[one for one in cell if isinstance(one, Override)] for cell in read], searched


def _takes_a_list(composer: _Composer, override: Override) -> bool:
    """Return whether several values of a key may be meant as one list."""
    if (key := overrides.group(override)) in groups.LISTS:
        return True
    base, _ = composer.base([])
    found = OmegaConf.select(base, key, throw_on_missing=False, throw_on_resolution_failure=False) if base else None
    return OmegaConf.is_list(found)


class _Composer:
    """Composes the cells of one command; the choices that cells share are composed once."""

    def __init__(self, verb: str, dirs: Sequence[Path]) -> None:
        self.verb, self.dirs = verb, dirs
        self._bases: dict[tuple[str, ...], tuple[DictConfig | None, list[str]]] = {}
        self._known: dict[int, list[str]] = {}
        self._judged: dict[tuple[int, str | None], str | None] = {}  # what is wrong with a value in a base
        self._schema = _Schema(verb)

    def base(self, choices: Sequence[Override]) -> tuple[DictConfig | None, list[str]]:
        """Compose the choices of a cell without its values, and return what is wrong with the choices left out."""
        judged = [
            (o.input_line or "", unread.by_verb(self.verb, o) or overrides.wrong_choice(o, self.dirs)) for o in choices
        ]
        words = tuple(word for word, wrong in judged if wrong is None)
        if words not in self._bases:
            self._bases[words] = self._composed(words)
        cfg, problems = self._bases[words]
        return cfg, [*(wrong for _, wrong in judged if wrong is not None), *problems]

    def _composed(self, words: Sequence[str]) -> tuple[DictConfig | None, list[str]]:
        try:
            return compose(self.verb, list(words), return_hydra_config=True), []
        except NOT_COMPOSED as error:
            if not words:
                return None, [overrides.plain(error)]
        problems: list[str] = []
        valid: list[str] = []
        for word in words:  # find the wrong ones
            try:
                compose(self.verb, [*valid, word])
                valid.append(word)
            except NOT_COMPOSED as error:
                problems.append(f"{word}: {overrides.plain(error)}")
        return self._composed(valid)[0], problems

    def cell(
        self, typed: Sequence[Override], number: int | None, replaced: Sequence[Override]
    ) -> tuple[ComposedCell | None, list[str]]:
        """Compose one cell from its valid overrides, and list what is wrong with the others.

        `replaced` are those whose key is typed again later; they are checked too.
        """
        cell = [*replaced, *typed]
        base, problems = self.base([o for o in cell if overrides.is_choice(o)])
        if base is None:
            return None, problems
        cfg = copied(base)
        if number is not None:
            cfg.hydra.job.num = number
        known = self._known.get(id(base)) or self._known.setdefault(id(base), checks.leaves(roles.values(base)))
        for override in (o for o in cell if not overrides.is_choice(o)):  # choices are checked in base
            judged = (id(base), override.input_line)
            if judged not in self._judged:
                by_verb = unread.by_verb(self.verb, override)
                self._judged[judged] = by_verb or overrides.wrong_value(override, base, known, self.dirs)
            problem = self._judged[judged]
            if problem is None:
                try:
                    ConfigLoaderImpl._apply_overrides_to_config([override], cfg)
                except NOT_COMPOSED as error:
                    problem = f"{overrides.typed(override)}: {overrides.plain(error)}"
            problems += [problem] if problem else []
        if number is not None:
            problems += plugins.clashing(self.verb, cfg)
        if self.verb == "distill":
            if stray := _stray(cfg):
                return None, [*problems, stray]
            problems += unread.by_losses(cell, losses(cfg, resolve=False))
            problems += roles.clashing(cfg, cfg.hydra.runtime.choices)
        try:
            problems += roles.unanswered(self.verb, cfg) if self.verb not in config.MEASURING else []
            problems += self._schema.problems(cfg)
            folders = {"run": str(cfg.hydra.run.dir), "sweep": str(cfg.hydra.sweep.dir)}
        except NOT_COMPOSED as error:
            return None, [*problems, overrides.unresolved(error, cell)]
        read = [o for o in cell if unread.ignored(self.verb, o) is None]
        words = [o.input_line or "" for o in typed]
        composed = ComposedCell(cfg, words, self._schema.values, self._schema.lasting, folders)
        return composed, problems or unread.by_command(read, cfg)  # by_command needs valid values


class _Schema:
    """The typed root of a verb, into which every cell is merged; only what differs from the last cell is merged."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self._schema = pickle.dumps(OmegaConf.structured(groups.SCHEMAS[verb if verb in config.MEASURING else "root"]))
        self.values: dict[str, Any] = {}  # of the last cell, with ??? for those that are missing
        self.lasting = True  # whether they are the same whenever they are resolved
        self._content: dict[str, Any] = {}  # of the last cell that was merged
        self._root: Any = None

    def problems(self, cfg: DictConfig) -> list[str]:
        """Return what is wrong with keys and types, found by merging, and with ranges.

        Raise OmegaConf's error if a cell cannot be merged.
        """
        let_values_see(cfg)
        visible = without_hydra(cfg)
        OmegaConf.clear_cache(visible)  # which may hold what only Hydra's part needed
        try:
            content: Any = OmegaConf.to_container(visible, resolve=True, throw_on_missing=True)
        except MissingMandatoryValue:
            self.values = {str(key): _known(visible, str(key)) for key in visible}
            return [f"{key} must be given: type {key}=…" for key in sorted(OmegaConf.missing_keys(visible))]
        self.values, self.lasting = content, not OmegaConf.get_cache(visible)
        root = self._typed(content)
        several = _several_recipes(root, cfg) if isinstance(root, config.Root) else []
        stubs = [] if self.verb != "distill" else [name for name, node in losses(cfg).items() if "use" not in node]
        unchosen = [
            f"loss.{name} is set, but loss={name} is not chosen; choose it, or remove the setting" for name in stubs
        ]
        return [*unchosen, *root.problems(), *several]

    def _typed(self, content: dict[str, Any]) -> Any:
        """Return the typed root of a configuration's content."""
        same = {
            k for k, v in content.items() if k in self._content and repr(v) == repr(self._content[k])
        }  # repr, because 1 == 1.0 but their types differ
        typed = pickle.loads(self._schema)
        same = {key for key in same if not OmegaConf.is_missing(typed, key)}
        typed.merge_with({key: value for key, value in content.items() if key not in same})
        root: Any = OmegaConf.to_object(typed)
        root = dataclasses.replace(root, **{key: getattr(self._root, key) for key in same})
        if isinstance(root, config.Root) and "recipe" in root.teacher and "teacher" not in same:
            recipe = OmegaConf.merge(OmegaConf.structured(config.Recipe), root.teacher["recipe"])
            root.teacher["recipe"] = OmegaConf.to_object(recipe)
        self._content, self._root = content, root
        return root


def _known(cfg: DictConfig, key: str) -> Any:
    """Return a plain value of a configuration that lacks some: ??? in their place, and resolved if that is possible."""
    for resolve in (True, False):
        with contextlib.suppress(OmegaConfBaseException):
            value = cfg[key]
            return OmegaConf.to_container(value, resolve=resolve) if OmegaConf.is_config(value) else value
    return "???"


def _several_recipes(root: config.Root, cfg: DictConfig) -> list[str]:
    """Return what is wrong with recipes of several teachers and of assistants, except problems of the single recipe."""
    problems: list[str] = []
    members = [("teachers", root.teacher["recipe"], roles.teachers), ("assistants", root.recipe, roles.assistants)]
    for group, single, parts in members:
        shared = set(single.problems("")) if isinstance(single, config.Recipe) else set()
        for part in parts(cfg, cfg.hydra.runtime.choices) if getattr(root, group) else ():
            node = part.cfg.teacher.recipe if group == "teachers" else part.cfg.recipe
            content = OmegaConf.to_container(node, resolve=True)
            recipe: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config.Recipe), content))
            own = [problem for problem in recipe.problems("") if problem not in shared]
            problems += [f"{group}.{part.name}.recipe.{problem}" for problem in own]
    return problems


def scaled_defaults(cells: Sequence[ComposedCell]) -> list[str]:
    """Return which defaults of a recipe are scaled to the number of epochs that is set, one sentence each."""
    sentences: list[str] = []
    for cell in cells:
        for where in ("recipe", "teacher.recipe"):
            node = OmegaConf.select(cell.cfg, where)
            for key in ("warmup_epochs", "milestones") if node is not None else ():
                written = re.fullmatch(r"\$\{kdrun\.scaled:(.+),(\d+)\}", str(roles.values(node)[key]))
                if written and (now := roles.values(node, resolve=True)[key]) != yaml.safe_load(written[1]):
                    value = f"{now:g}" if isinstance(now, float) else checks.as_typed(now)
                    usual = f"{written[1]} is for {written[2]} epochs"
                    sentences.append(f"{where}.{key}={value}, scaled to {where}.epochs={node.epochs} ({usual})")
    return list(dict.fromkeys(sentences))


def _stray(cfg: DictConfig) -> str | None:
    """Return a problem if a loss's file lacks its package line, so that its keys belong to no loss; or None."""
    if not any(not isinstance(node, Mapping) for node in roles.values(cfg.loss).values()):
        return None
    choice = cfg.hydra.runtime.choices.get("loss")  # no string if several are chosen
    name = choice if isinstance(choice, str) else "NAME"
    return f"loss={choice or '[…]'}: the first line of conf/loss/{name}.yaml must be # @package loss.{name}"


def losses(cfg: DictConfig, *, resolve: bool = True) -> dict[str, dict[str, Any]]:
    """Return the chosen losses by name, without cross-entropy with the labels."""
    return {name: node for name, node in roles.values(cfg.loss, resolve=resolve).items() if name != "ce"}


def without_torchrun(verb: str, cells: Sequence[ComposedCell]) -> list[str]:
    """Refuse a sweep under torchrun whose launcher would start processes of its own."""
    if torchrun.processes() == 1:
        return []
    elsewhere = {str(c.cfg.hydra.runtime.choices["hydra/launcher"]) for c in cells if not plugins.in_turn(c.cfg.hydra)}
    typed = f"kdrun {verb.replace('_', ' ')} -m …"
    return [
        f"hydra/launcher={name}: starts its own processes, which does not work under torchrun; type {typed} "
        "without torchrun, or leave the launcher out"
        for name in sorted(elsewhere)
    ]
