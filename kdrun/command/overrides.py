"""What one word of a command line says, and what is wrong with it: choices, keys, types, settings typed in vain.

Every function gives the sentence to print, or None. Knows no torch and touches nothing.
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
from kdrun.command import plugins
from kdrun.command.groups import CASTS, GROUPS, LISTS, options

REFUSED = {  # keys of Hydra's own that would break what kdrun promises
    "hydra.job.chdir": "results, data and files are named relative to the folder that the command is typed in",
    "hydra.mode": "a sweep is typed with -m",
    "hydra.sweep.subdir": "a sweep's cells lie in folders of their numbers, where its table finds them",
    "hydra.job.name": "it is the verb; outputs=DIR and hydra.run.dir=DIR say where results go",
}


def parse(word: str) -> Override | str:
    """Read KEY=VALUE; a string is what is wrong with it."""
    if "=" not in word and not word.startswith("~"):
        return f"{short(word) or shlex.quote('')}: settings are typed as KEY=VALUE; kdrun --help lists the verbs"
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        first = (str(error).splitlines() or ["cannot be read"])[0]
        return f"{short(word)}: {first} (quote what holds spaces, brackets, ~ or accents: KEY='\"a b\"', 'KEY=[a,b]')"
    if not override.key_or_group:
        return f"{word}: settings are typed as KEY=VALUE; here the key is missing"
    return override


def group(override: Override) -> str:
    """Return the group or key that is set, without a package."""
    return str(override.key_or_group)


def typed(override: Override) -> str:
    """Return the word as it was typed, shortened where it is very long."""
    return short(override.input_line or group(override))


def is_choice(override: Override) -> bool:
    """Whether it chooses of a group, one of Hydra's own included, rather than sets a value."""
    return group(override) in GROUPS or group(override).startswith("hydra/")


def wrong_choice(override: Override, dirs: Sequence[Path]) -> str | None:
    """Return what is wrong with `group=option`, with the options that exist."""
    name, value = group(override), override.value()
    names = options(name, dirs) if name in GROUPS else GlobalHydra.instance().config_loader().get_group_options(name)
    there = ", ".join(names) or f"none yet; a file conf/{name}/NAME.yaml of your own adds one"
    if override.is_delete():
        return f"{typed(override)}: a choice cannot be removed; {name}={names[0] if names else 'NAME'} makes another"
    if value is None:
        why = "is so by default; leave it out" if name == "experiment" else f"one must be chosen of {there}"
        return f"{typed(override)}: {why}"
    if isinstance(value, Mapping):
        return f"{typed(override)}: is chosen by name, of {there}; its keys are typed as KEY=VALUE of their own"
    if isinstance(value, list) and name not in LISTS:
        return f"{typed(override)}: takes one choice; several are a sweep: -m {name}={','.join(map(str, value))}"
    if value == []:
        return f"{typed(override)}: at least one must be chosen of {there}"
    chosen = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    for one in chosen:
        if absent := plugins.missing(name, one):
            return absent
        if one not in names:
            kind = name.removesuffix("s") if name in CASTS else name
            return f"{name}={short(one)}: there is no such {kind}.{checks.nearest(one, names)} Existing: {there}"
        if chosen.count(one) > 1:
            return f"{typed(override)}: {one} stands there twice; a second copy is +{name}@{name}.{one}2={one}"
    return None


def wrong_value(override: Override, base: DictConfig, known: Sequence[str], dirs: Sequence[Path]) -> str | None:
    """Say what is wrong with `key=value`, given the configuration that it would change and that one's keys."""
    key, value, word = group(override), override.value(), typed(override)
    if key in REFUSED and value not in (False, None):
        return f"{word}: is not for changing here: {REFUSED[key]}"
    if override.package is not None:
        return f"{word}: {key} is no group of choices; the groups are {', '.join(GROUPS)}"
    place, *rest = key.split(".")
    if place in ("sweep", "quick"):
        return f"{word}: {place} belongs to an experiment's file; here its keys are typed themselves, as -m T=1,2,4"
    if place in CASTS and rest and f"{place}.{rest[0]}" not in known:
        chosen = ",".join(k.removeprefix(f"{place}.") for k in known if re.fullmatch(rf"{place}\.\w+", k)) or "none"
        return f"{word}: {rest[0]} is not among {place} (chosen: {chosen}); '{place}=[{rest[0]},…]' chooses it"
    parents = list(itertools.accumulate(key.split(".")[:-1], lambda a, b: f"{a}.{b}"))
    if any(_is_open(base, parent) for parent in parents):
        return None if override.is_add() or override.is_force_add() or key in known else f"{word}: type +{word}"
    if key.startswith("hydra.") and override.is_add():
        return None  # Hydra's plugins have open blocks; it says itself where one is closed
    if key not in known:
        return unknown(key, known, word, dirs)
    if override.is_add() or override.is_force_add():
        return None if _is_open(base, key) else f"{word}: {key} exists; type it without +"
    if override.is_delete():
        return f"{word}: a key cannot be removed; set it to null where null is allowed"
    if key.startswith("hydra.") or (isinstance(value, str) and "${" in value):
        return None  # its type shows when it is resolved
    return checks.type_problem(word, value, *_declared(base, key))


def unknown(key: str, known: Sequence[str], word: str, dirs: Sequence[Path]) -> str:
    """Say that there is no such key, with the nearest ones and those that stand beside it."""
    parent, _, last = key.rpartition(".")
    if key.startswith("loss.") and (name := key.split(".")[1]) in options("loss", dirs) and f"loss.{name}" not in known:
        chosen = [k.removeprefix("loss.") for k in known if re.fullmatch(r"loss\.\w+", k) and k != "loss.ce"]
        return f"{word}: {name} is not chosen here (loss={','.join(chosen)}); loss={name} chooses it"
    if parent == "robustness" and "robustness" in known and not any(k.startswith("robustness.") for k in known):
        names = [name for name in options(parent, dirs) if name != "none"]
        return f"{word}: is not read with robustness=none; robustness={' or robustness='.join(names)} chooses it"
    own = [k for k in known if key.startswith("hydra") or not k.startswith("hydra")]
    namesakes = [k for k in own if k.rpartition(".")[2] == last]
    hint = f" Did you mean {' or '.join(namesakes[:3])}?" if namesakes else checks.nearest(key, own)
    beside = [k for k in own if k.rpartition(".")[0] == parent] or [k for k in own if "." not in k]
    return f"{word}: there is no key {short(key)}.{hint} Existing: {', '.join(beside)}"


def ignored(verb: str, override: Override) -> str | None:
    """Refuse what the verb never reads, with the place where it belongs."""
    changed = override.package or group(override)  # recipe@teacher.recipe=NAME changes the teacher's recipe
    ignored = config.IGNORED[verb]
    place = next((place for place in (changed.partition(".")[0], changed) if place in ignored), None)
    return f"{typed(override)}: kdrun {verb.replace('_', ' ')} ignores {place}: {ignored[place]}" if place else None


def in_vain(overrides: Sequence[Override], cfg: DictConfig) -> list[str]:
    """Refuse what the rest of the command leaves unread, in one composed cell."""
    problems = []
    for override in overrides:
        block, _, key = group(override).rpartition(".")
        node = OmegaConf.select(cfg, block) if block else cfg
        why = None
        if block.rpartition(".")[2] == "recipe" and key in config.READ_WITH:
            decides, values = config.READ_WITH[key]
            if node[decides] not in values:
                why = f"{block}.{decides}={node[decides]}; it belongs to {' and '.join(values)}"
        elif (block, key) == ("dataset", "val_fraction") and override.value() and cfg.recipe.protocol == "paper":
            why = "recipe.protocol=paper, which holds nothing out"
        elif (block, key) == ("transfer", "seed") and cfg.transfer.fraction == 1:
            why = "transfer.fraction=1, where there is nothing to draw"
        elif key == "min_delta" and node.patience is None:
            why = f"{block}.patience=null, which never stops early"
        elif block == "teacher.recipe" and cfg.teacher["from"] is not None:
            why = "teacher.from, which trains nothing"
        elif block.startswith("teachers.") and block.endswith(".recipe") and cfg.teachers[block.split(".")[1]]["from"]:
            why = f"teachers.{block.split('.')[1]}.from, which trains nothing"
        elif key == "trust" and override.value() and (node is None or node["from"] is None):
            why = f"{block}.from=null, where the teacher is trained here"
        elif replaced := _replaced(group(override), cfg):
            why = replaced
        elif group(override) == "combine" and len(cfg.teachers) < 2:
            why = "one teacher; 'teachers=[NAME,NAME]' gives it more"
        elif (
            group(override).startswith("teacher") and key not in ("from", "trust") and _names_a_run(cfg.teacher["from"])
        ):
            why = "teacher.from, which brings its own network"
        elif key == "patience" and (cfg.recipe.protocol == "paper" or not cfg.dataset.val_fraction):
            why = "nothing held out, since convergence is seen on validation"
        elif (block, key) == ("loss.ce", "weight") and override.value() and not cfg.transfer.labels:
            why = "transfer.labels=false"
        if why:
            problems.append(f"{typed(override)}: is not read with {why}")
    return problems


def unmeasured(overrides: Sequence[Override], cfg: DictConfig) -> list[str]:
    """Refuse settings of a measurement that the rest of the command leaves out, in `kdrun evaluate`."""
    readers = {
        "severities": ("corruptions",),
        "images": ("corruptions",),
        "pgd_steps": ("pgd",),
        "pgd_step": ("pgd",),
        "attack_images": ("fgsm", "pgd"),
    }
    problems = []
    for override in overrides:
        place, _, key = group(override).rpartition(".")
        if key == "force" and override.value() and not (cfg.robustness or cfg.cost):
            problems.append(f"{typed(override)}: is read with robustness=standard or quick, and with cost=true")
        read_by = readers.get(key, ()) if place == "robustness" else ()
        if read_by and not any(cfg.robustness[reader] for reader in read_by):
            why = " and ".join(f"robustness.{reader}=[]" for reader in read_by)
            problems.append(f"{typed(override)}: is not read with {why}")
    return problems


def _replaced(key: str, cfg: DictConfig) -> str | None:
    """Return what stands in the place of the single teacher or student that a word is about."""
    place, _, rest = key.partition(".")
    listed = {"teacher": list(cfg.teachers), "student": list(cfg.students)}.get(place)
    own = rest.partition(".")[0] not in ("recipe", "seed")  # which hold for all of the list
    if listed and own:
        again = f"; type {place}s.{listed[0]}.{rest}" if rest else ""
        return f"{place}s=[{','.join(map(str, listed))}], which stands in its place{again}"
    if place == "student" and cfg.generations:
        return f"generations={cfg.generations}, where the student is the teacher's own network"
    return None


def clashing(cfg: DictConfig) -> list[str]:
    """Refuse casts that exclude one another."""
    if not cfg.generations:
        return []
    lists = {key: list(cfg[key]) for key in ("students", "assistants")} | {"teachers": list(cfg.teachers)[1:]}
    return [
        f"generations={cfg.generations} with {key}: every generation is the one teacher's own network, taught by the "
        f"generation before; leave {key} out"
        for key, names in lists.items()
        if names
    ]


def _names_a_run(source: Any) -> bool:
    """Return whether teacher.from names a run or an artifact, and not a file of weights for the chosen network."""
    return source is not None and checks.file_and_entry(str(source)) is None


def unheard(overrides: Sequence[Override], losses: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Refuse alpha and T if none of the chosen losses, given unresolved, reads them, and ${alpha} as a weight."""
    problems = [
        f"loss.{name}.weight=${{alpha}}: write weight: null and weighed_by: alpha into the loss's file, by which the "
        "labels weigh 1 - alpha"
        for name, node in losses.items()
        if node.get("weight") == "${alpha}"
    ]
    for override in overrides:
        key = group(override)
        if key not in ("alpha", "T") or any(checks.reads(node, key) for node in losses.values()):
            continue
        own = "weight" if key == "alpha" else "T"
        fixed = ("use", "weighed_by")
        keys = {f"loss.{name}.{k}": v for name, node in losses.items() for k, v in node.items() if k not in fixed}
        if instead := [f"{k}={v}" for k, v in keys.items() if k.endswith(own) and v is not None and "$" not in str(v)]:
            why = f"{' and '.join(instead)} is set in its place; leave one or the other out"
        else:
            why = f"the chosen loss ({', '.join(losses)}) has none; its keys: {', '.join(keys)}"
        problems.append(f"{typed(override)}: nothing reads {key} here: {why}")
    return problems


def plain(error: Exception) -> str:
    """Return what Hydra, OmegaConf or the YAML reader says in one line, with the nearest key for a wrong one."""
    text = str(error.__cause__ or error).partition("Config search path:")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [n for n in lines if not re.match(r"(full_key|object_type|reference_type|Set the environment)", n)]
    key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
    message = " ".join(kept)
    if wrong := re.search(r"Key '(\w+)' not in '(\w+)'", message):
        schema = getattr(config, wrong[2], None)
        names = [field.name for field in fields(schema)] if is_dataclass(schema) else []
        message += checks.nearest(wrong[1], names) + f" Existing: {', '.join(names)}" if names else ""
    return f"{key}: {message}" if key and key not in message else message


def _is_open(base: DictConfig, key: str) -> bool:
    """Whether it is a block that takes any key, such as the arguments of an external model."""
    block = OmegaConf.select(base, key, throw_on_missing=False)
    return (isinstance(block, DictConfig) and not block) or (block is None and key == "hydra.sweeper.params")


def _declared(base: DictConfig, key: str) -> tuple[Any, Any]:
    """Return a key's type, from its dataclass or else from its YAML's default, and that default."""
    parent, _, last = key.rpartition(".")
    owner = OmegaConf.get_type(OmegaConf.select(base, parent) if parent else base)
    default = OmegaConf.select(base, key, throw_on_missing=False)
    default = OmegaConf.to_container(default) if OmegaConf.is_config(default) else default
    if owner in (config.Root, config.Evaluate, config.Export, config.Recipe, config.Transfer, config.Robustness):
        return get_type_hints(owner)[last], default
    if OmegaConf.is_missing(OmegaConf.select(base, parent), last):
        return checks.Word, "???"
    return checks.type_of(last, default), default


def short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:100]}…{text[-50:]} ({len(text)} characters)"
