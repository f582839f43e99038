"""Parse one word of a command line and check it: choices, keys and types.

Every check returns the message to print, or None. Does not import torch, and writes nothing.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from kdrun import checks, config
from kdrun.checks import short
from kdrun.command import hints, plugins
from kdrun.command.groups import CASTS, GROUPS, LISTS, files, options

REFUSED = {  # keys of Hydra's own that would break what kdrun promises
    "hydra.job.chdir": "paths are relative to the folder in which the command is typed",
    "hydra.mode": "type -m for a sweep",
    "hydra.sweep.subdir": "a sweep's cells must be in numbered folders, where its table looks for them",
    "hydra.job.name": "it is always the verb; outputs=DIR and hydra.run.dir=DIR choose the folder of the results",
}
NOT_TYPED = ("sweep", "quick", "published", "reported")  # keys of an experiment's file

NAMED = {"loss": ("ce",), "augment": ("views", "seed")}  # groups with one block per choice -> their other keys


def parse(word: str) -> Override | str:
    """Parse KEY=VALUE; return what is wrong as a string if it cannot be parsed."""
    if "=" not in word and not word.startswith("~"):
        return f"{short(word) or shlex.quote('')}: settings are typed as KEY=VALUE; kdrun --help lists the verbs"
    try:
        override = OverridesParser.create().parse_override(word)
    except (HydraException, ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
        first = (str(error).splitlines() or ["cannot be read"])[0]
        return f"{short(word)}: {first} (quote values with spaces, brackets, ~ or accents: KEY='\"a b\"', 'KEY=[a,b]')"
    if not override.key_or_group:
        return f"{word}: settings are typed as KEY=VALUE; here the key is missing"
    return override


def group(override: Override) -> str:
    """Return the group or key that is set, without a package."""
    return str(override.key_or_group)


def typed(override: Override) -> str:
    """Return the word as it was typed, shortened if it is very long."""
    return short(override.input_line or group(override))


def is_choice(override: Override) -> bool:
    """Return whether an override chooses from a group (Hydra's groups included) rather than setting a value."""
    return group(override) in GROUPS or group(override).startswith("hydra/")


def wrong_choice(override: Override, dirs: Sequence[Path]) -> str | None:
    """Return what is wrong with `group=option`, with the options that exist."""
    name, value = group(override), override.value()
    names = options(name, dirs) if name in GROUPS else GlobalHydra.instance().config_loader().get_group_options(name)
    existing = ", ".join(names) or f"none yet; add your own in conf/{name}/NAME.yaml"
    if override.is_delete():
        return f"{typed(override)}: a choice cannot be removed; {name}={names[0] if names else 'NAME'} chooses another"
    if value is None:
        why = "is the default; leave it out" if name == "experiment" else f"choose one of {existing}"
        return f"{typed(override)}: {why}"
    if isinstance(value, Mapping):
        return f"{typed(override)}: choose one by name, of {existing}, and type its keys as separate KEY=VALUE"
    if isinstance(value, list) and name not in LISTS:
        return (
            f"{typed(override)}: takes one value; for a sweep over several, type -m {name}={','.join(map(str, value))}"
        )
    if value == []:
        return f"{typed(override)}: choose at least one of {existing}"
    chosen = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    if name == "recipe" and override.package and (more := _chooses_more(chosen[0], dirs)):
        also = f"also chooses the students' {more}, so it is only for them"
        return f"{typed(override)}: recipe={chosen[0]} {also}; choose another"
    for one in chosen:
        if absent := plugins.missing(name, one):
            return absent
        if one not in names:
            kind = name.removesuffix("s") if name in CASTS else name
            meant = hints.for_choice(name, one, names)
            hint = f" {meant}" if meant else f"{checks.nearest(one, names)} Available: {existing}"
            return f"{name}={short(one)}: there is no such {kind}.{hint}"
        if chosen.count(one) > 1 and name == "augment":
            return f"{typed(override)}: {one} is listed twice; once is enough"
        if chosen.count(one) > 1:
            return f"{typed(override)}: {one} is listed twice; for a second copy, type +{name}@{name}.{one}2={one}"
    return None


def _chooses_more(recipe: str, dirs: Sequence[Path]) -> str:
    """Return what a recipe's file chooses besides the recipe, in words; empty if nothing."""
    file = files("recipe", dirs).get(recipe)
    chosen = re.findall(r"^ *- override /(\w+)", file.read_text(), flags=re.MULTILINE) if file else []
    return " and ".join(chosen)


def wrong_value(override: Override, base: DictConfig, known: Sequence[str], dirs: Sequence[Path]) -> str | None:
    """Return what is wrong with `key=value`, given the configuration that it changes and that configuration's keys."""
    key, value, word = group(override), override.value(), typed(override)
    if key in REFUSED and value not in (False, None):
        return f"{word}: cannot be changed: {REFUSED[key]}"
    if key.partition(".")[0] == "hydra" and not isinstance(value, Mapping) and _is_block(base, key):
        return f"{word}: {key} is a group of settings; type them as {key}.NAME=VALUE"
    if override.package is not None:
        return f"{word}: {key} is not a config group; the groups are {', '.join(GROUPS)}"
    place, *rest = key.split(".")
    if place in ("sweep", "quick"):
        return f"{word}: {place} belongs in an experiment's file; here, type its keys directly, such as -m T=1,2,4"
    if place in CASTS and rest and f"{place}.{rest[0]}" not in known:
        chosen = ",".join(k.removeprefix(f"{place}.") for k in known if re.fullmatch(rf"{place}\.\w+", k)) or "none"
        return f"{word}: {rest[0]} is not among {place} (chosen: {chosen}); '{place}=[{rest[0]},…]' chooses it"
    parents = list(itertools.accumulate(key.split(".")[:-1], lambda a, b: f"{a}.{b}"))
    if any(_is_open(base, parent) for parent in parents):
        return None if override.is_add() or override.is_force_add() or key in known else f"{word}: type +{word}"
    if key.startswith("hydra.") and override.is_add():
        return None  # Hydra's plugins have open blocks; Hydra itself refuses a key that a block does not take
    if key not in known:
        return unknown(key, known, word, dirs, value)
    if override.is_add() or override.is_force_add():
        return None if _is_open(base, key) else f"{word}: {key} exists; type it without +"
    if override.is_delete():
        return f"{word}: a key cannot be removed; set it to null, if null is allowed"
    if key.startswith("hydra.") or (isinstance(value, str) and "${" in value):
        return None  # the type is known only once it is resolved
    return checks.type_problem(word, value, *_declared(base, key))


def unknown(key: str, known: Sequence[str], word: str, dirs: Sequence[Path], value: Any) -> str:
    """Return the message for an unknown key: what was probably meant, or the nearest keys and those of its block."""
    parent, _, last = key.rpartition(".")
    place, *names = key.removeprefix("teacher.").split(".")
    if place in NAMED and names and (name := names[0]) in options(place, dirs):
        block = key[: key.index(place) + len(place)]
        shared = NAMED[place]
        chosen = [k.rpartition(".")[2] for k in known if re.fullmatch(rf"{block}\.\w+", k)]
        chosen = [one for one in chosen if one not in shared]
        choice = place if block == place else f"{place}@{block}"
        if name not in chosen:
            also = f"'{choice}=[{','.join([*chosen, name])}]' chooses it too, " if chosen else ""
            alone = f"{choice}={name} chooses it{' alone' if chosen else ''}"
            return f"{word}: {name} is not chosen here ({choice}={','.join(chosen) or 'none'}); {also}{alone}"
    if parent == "robustness" and "robustness" in known and not any(k.startswith("robustness.") for k in known):
        names = [name for name in options(parent, dirs) if name != "none"]
        return f"{word}: has no effect with robustness=none; type robustness={' or robustness='.join(names)}"
    if last in ("data", "data_set", "dataset_name") and str(value) in options("dataset", dirs):
        return f"{word}: there is no key {short(key)}. Type dataset={value}"
    if meant := hints.for_key(key, checks.as_typed(value)):
        return f"{word}: there is no key {short(key)}. {meant}"
    if owners := hints.elsewhere(key, word, lambda group: files(group, dirs)):
        return f"{word}: {owners}"
    hydra = key.startswith("hydra")
    candidates = [k for k in known if hydra or k.partition(".")[0] not in ("hydra", *NOT_TYPED)]
    if not hydra and any(k.startswith("recipe.") for k in candidates):  # a verb that trains
        candidates += ["experiment", "budget"]
    namesakes = [k for k in candidates if k.rpartition(".")[2] == last]
    hint = f" Did you mean {' or '.join(namesakes[:3])}?" if namesakes else checks.nearest(key, candidates)
    siblings = [k for k in candidates if k.rpartition(".")[0] == parent] or [k for k in candidates if "." not in k]
    return f"{word}: there is no key {short(key)}.{hint} Available: {', '.join(siblings)}"


def plain(error: Exception) -> str:
    """Return an error of Hydra, OmegaConf or the YAML reader in one line, with the nearest key if a key is wrong."""
    text = str(error.__cause__ or error).partition("Config search path:")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [n for n in lines if not re.match(r"(full_key|object_type|reference_type|Set the environment)", n)]
    key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
    message = re.sub(r"^\w+ raised while resolving interpolation: ", "", " ".join(kept))
    message = message.replace("got multiple values for argument '_parent_'", "takes one value; quote one with commas")
    if wrong := re.search(r"Key '(\w+)' not in '(\w+)'", message):
        schema = getattr(config, wrong[2], None)
        names = [field.name for field in fields(schema)] if is_dataclass(schema) else []
        message += checks.nearest(wrong[1], names) + f" Available: {', '.join(names)}" if names else ""
    return f"{key}: {message}" if key and key not in message else message


def unresolved(error: Exception, typed_words: Sequence[Override]) -> str:
    """Return an error of a whole configuration, preceded by the words that contain a ${…}, if there are any."""
    suspects = [typed(override) for override in typed_words if "${" in (override.input_line or "")]
    return f"{', '.join(suspects)}: {plain(error)}" if suspects else plain(error)


def _is_open(base: DictConfig, key: str) -> bool:
    """Return whether a block takes any key, such as the arguments of an external model."""
    block = OmegaConf.select(base, key, throw_on_missing=False)
    return (isinstance(block, DictConfig) and not block) or (block is None and key == "hydra.sweeper.params")


def _is_block(base: DictConfig, key: str) -> bool:
    """Return whether a key holds other keys."""
    return OmegaConf.is_dict(OmegaConf.select(base, key, throw_on_missing=False, throw_on_resolution_failure=False))


def _declared(base: DictConfig, key: str) -> tuple[Any, Any]:
    """Return a key's type, from its dataclass or else from the default in its YAML, and its default."""
    parent, _, last = key.rpartition(".")
    owner = OmegaConf.get_type(OmegaConf.select(base, parent) if parent else base)
    default = OmegaConf.select(base, key, throw_on_missing=False)
    default = OmegaConf.to_container(default) if OmegaConf.is_config(default) else default
    if owner in (config.Root, config.Evaluate, config.Export, config.Recipe, config.Transfer, config.Robustness):
        return get_type_hints(owner)[last], default
    if OmegaConf.is_missing(OmegaConf.select(base, parent), last):
        return checks.Word, "???"
    return checks.type_of(last, default), default
