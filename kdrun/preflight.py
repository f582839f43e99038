"""The preflight: compose the configuration before anything is made on disk, and gather every error of it.

Hydra stops at the first error and exits 1 whatever went wrong; here each override is tried on its own, so
that one command lists all that is wrong with it. Knows no torch.
"""

from __future__ import annotations

import itertools
import re
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdrun import config

GROUPS = ("dataset", "teacher", "student", "loss", "recipe", "experiment", "budget")
LISTS = ("loss",)  # groups of which several may be chosen at once


@dataclass
class Checked:
    """A command line that holds: the composed configuration, one per cell of a sweep."""

    cells: list[DictConfig]
    overrides: list[list[str]]


def user_dirs(config_dir: str | None = None) -> list[Path]:
    """Give the configuration folders in the order they are searched: ./conf, kdrun's own, --config-dir."""
    dirs = [config.CONF]
    if (own := Path.cwd() / "conf").is_dir() and own.resolve() != config.CONF.resolve():
        dirs.insert(0, own)
    if config_dir:
        dirs.append(Path(config_dir).absolute())
    return dirs


def options(group: str, dirs: Sequence[Path]) -> list[str]:
    """List the choices of a group, from every configuration folder."""
    folder = "model" if group in ("student", "teacher") else group
    found = {
        file.relative_to(d / folder).with_suffix("").as_posix()
        for d in dirs
        for file in (d / folder).rglob("*.yaml")
        if not (group == "recipe" and file.parent.name == "for")
    }
    return sorted(found)


def register(dirs: Sequence[Path]) -> None:
    """Tell Hydra about the schemas, the groups made from conf/model, the resolvers and the user's ./conf."""
    store = ConfigStore.instance()
    for name, node in (("root", config.Root), ("evaluate", config.Evaluate), ("recipe", config.Recipe)):
        store.store(group="schema", name=name, node=node, provider="kdrun")
    for name in options("student", dirs):
        # one model file serves both groups; what the model asks of its recipe is laid over the recipe
        asked = any((d / "recipe" / "for" / f"{name}.yaml").is_file() for d in dirs)
        for group, recipe in (("student", "recipe"), ("teacher", "teacher.recipe")):
            node = [{f"/model@{group}": name}, *([{f"/recipe/for@{recipe}": name}] if asked else [])]
            store.store(group=group, name=name, node={"defaults": node}, package="_global_", provider="kdrun")
    OmegaConf.register_new_resolver("kdrun.uid", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True)

    class OwnConf(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            before, after = dirs[: dirs.index(config.CONF)], dirs[dirs.index(config.CONF) + 1 :]
            for folder in before:
                search_path.prepend("kdrun", f"file://{folder}")
            for folder in after:
                search_path.append("kdrun", f"file://{folder}")

    Plugins.instance().register(OwnConf)


def check(verb: str, overrides: Sequence[str], *, sweep: bool, dirs: Sequence[Path]) -> Checked | list[str]:
    """Compose the command, every cell of a sweep too; give what holds, or the list of all that is wrong."""
    parser = OverridesParser.create()
    parsed: list[Override] = []
    problems: list[str] = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            problems.append(_unparsed(text, str(error)))
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        cells = _cells(verb, [o for o in parsed if not str(o.key_or_group).startswith("hydra")], sweep, dirs, problems)
        if problems:
            return _once(problems)
        composed = []
        for cell in cells:
            words = [o.input_line or "" for o in cell]
            found = [wrong for o in cell if _is_group(o) and (wrong := _wrong_choice(o, dirs))]
            try:
                if found:
                    raise HydraException("a choice does not exist")
                cfg = compose(verb, words)
            except (HydraException, OmegaConfBaseException):
                found, cell = _one_by_one(verb, cell, dirs)
                if not cell and found:
                    problems += found
                    continue
                cfg = compose(verb, [o.input_line or "" for o in cell])
            found += _wrong_values(verb, cfg, cell)
            label = f" (in the cell {' '.join(words)})" if sweep and len(cells) > 1 else ""
            problems += [p + label for p in found]
            composed.append(cfg)
    return _once(problems) if problems else Checked(composed, [[o.input_line or "" for o in c] for c in cells])


def _cells(
    verb: str, parsed: list[Override], sweep: bool, dirs: Sequence[Path], problems: list[str]
) -> list[list[Override]]:
    """Expand a sweep into one list of overrides per cell, as Hydra's basic sweeper does."""
    parser = OverridesParser.create()
    choices: list[list[Override]] = []
    for override in parsed:
        if not override.is_sweep_override():
            choices.append([override])
            continue
        if not sweep:
            problems.append(f"{override.input_line}: several values are a sweep: type kdrun {_spoken(verb)} -m …")
            continue
        if isinstance(glob := override.value(), Glob):
            group = str(override.key_or_group).split("@")[0]
            names = options(group, dirs) if group in GROUPS else []
            values = [str(name) for name in glob.filter(names)]
            if not values:
                problems.append(f"{override.input_line}: matches nothing; {group} has {', '.join(names) or 'no choices'}")
        else:
            values = [str(value) for value in override.sweep_string_iterator()]
        choices.append([parser.parse_override(f"{override.get_key_element()}={value}") for value in values])
    return [list(cell) for cell in itertools.product(*choices)]


def _one_by_one(verb: str, cell: Sequence[Override], dirs: Sequence[Path]) -> tuple[list[str], list[Override]]:
    """Find which overrides of a cell do not compose: group choices first, then values over those that hold.

    Gives what is wrong, and the overrides that hold together.
    """
    problems: list[str] = []
    held: list[Override] = []

    def composes(override: Override) -> Exception | None:
        try:
            compose(verb, [o.input_line or "" for o in [*held, override]])
        except (HydraException, OmegaConfBaseException) as error:
            return error
        held.append(override)
        return None

    for override in (o for o in cell if _is_group(o)):
        if wrong := _wrong_choice(override, dirs):
            problems.append(wrong)
        elif error := composes(override):
            problems.append(f"{override.input_line}: {_plain(error)}")
    try:
        base = compose(verb, [o.input_line or "" for o in held])
    except (HydraException, OmegaConfBaseException) as error:
        return problems or [_plain(error)], []
    for override in (o for o in cell if not _is_group(o)):
        if error := composes(override):
            problems.append(_wrong_key(override, base, error))
    return problems, held


def _is_group(override: Override) -> bool:
    return str(override.key_or_group).split("@")[0] in GROUPS and not override.is_delete()


def _wrong_choice(override: Override, dirs: Sequence[Path]) -> str | None:
    """Say what is wrong with `group=option`, with the options that exist."""
    group = str(override.key_or_group).split("@")[0]
    value = override.value()
    names = options(group, dirs)
    if value is None:
        if group in ("experiment", "budget"):
            return None
        return f"{group}=null: one must be chosen of {', '.join(names)}"
    if isinstance(value, list) and group not in LISTS:
        return f"{group}={value}: takes one choice; several are a sweep: -m {group}={','.join(map(str, value))}"
    if isinstance(value, Mapping):
        return f"{group}={value}: is chosen by name, of {', '.join(names)}; its keys are typed as {group}.KEY=VALUE"
    chosen = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    for name in chosen:
        if name not in names:
            hint = config.nearest(name, names)
            return f"{group}={name}: there is no such {group}.{hint} Existing: {', '.join(names)}"
    if doubled := {n for n in chosen if chosen.count(n) > 1}:
        name = doubled.pop()
        return f"{group}={chosen}: {name} stands there twice; a second copy is +{group}@{group}.{name}2={name}"
    if not chosen:
        return f"{group}=[]: at least one must be chosen of {', '.join(names)}"
    return None


def _wrong_key(override: Override, base: DictConfig, error: Exception) -> str:
    """Say what is wrong with `key=value` that does not compose."""
    key = str(override.key_or_group)
    known = config.leaves(OmegaConf.to_container(base, resolve=False))  # type: ignore[arg-type]
    if override.is_add() and key in known:
        return f"{override.input_line}: {key} exists; type it without +"
    if key in known:
        return f"{override.input_line}: {_plain(error)}"
    return _unknown(key, known, override.input_line or key)


def _unknown(key: str, known: Sequence[str], typed: str) -> str:
    parent = key.rpartition(".")[0]
    siblings = [k for k in known if k.rpartition(".")[0] == parent]
    hint = config.nearest(key, known)
    if not hint and parent and parent not in known:
        return f"{typed}: there is no key {key} (nothing is called {parent} here)"
    shown = siblings or [k for k in known if "." not in k]
    return f"{typed}: there is no key {key}.{hint} Existing: {', '.join(shown)}"


def _wrong_values(verb: str, cfg: DictConfig, cell: Sequence[Override]) -> list[str]:
    """Check types, ranges and settings typed in vain in one composed cell."""
    schema = config.Evaluate if verb == "evaluate" else config.Root
    problems = _typed_in_vain(verb, cfg, cell)
    values = [o for o in cell if not _is_group(o)]
    if values:
        base = compose(verb, [o.input_line or "" for o in cell if _is_group(o)])
        plain = OmegaConf.to_container(base, resolve=False)
        known = config.leaves(plain)  # type: ignore[arg-type]
        for override in values:
            problems += _wrong_value(override, base, known)
    if problems:
        return problems
    try:
        root = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.to_container(cfg, resolve=True))
        )
    except OmegaConfBaseException as error:
        return [_plain(error)]
    assert isinstance(root, schema)
    if isinstance(root, config.Root):
        recipe = root.teacher.get("recipe")
        if isinstance(recipe, Mapping):
            root.teacher["recipe"] = OmegaConf.to_object(
                OmegaConf.merge(OmegaConf.structured(config.Recipe), dict(recipe))
            )
    return root.problems()


def _wrong_value(override: Override, base: DictConfig, known: Sequence[str]) -> list[str]:
    key = str(override.key_or_group)
    free = any(  # blocks that are open by design, such as the arguments of an external model
        isinstance(block := OmegaConf.select(base, parent), DictConfig) and not block
        for parent in itertools.accumulate(key.split(".")[:-1], lambda a, b: f"{a}.{b}")
    )
    if free:
        return []
    if key not in known:
        return [_unknown(key, known, override.input_line or key)]
    if override.is_add():
        return [f"{override.input_line}: {key} exists; type it without +"]
    if override.is_delete():
        return [f"{override.input_line}: a key cannot be removed; set it to null where null is allowed"]
    value = override.value()
    if isinstance(value, str) and "${" in value:
        return []
    default = OmegaConf.select(base, key, throw_on_missing=False)
    default = OmegaConf.to_container(default) if OmegaConf.is_config(default) else default
    if value is None and _may_be_null(base, key, default):
        return []
    problem = config.type_problem(key, _unquoted(value), default)
    return [problem] if problem else []


def _may_be_null(base: DictConfig, key: str, default: Any) -> bool:
    if default is None:
        return True
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(base, parent) if parent else base
    kind = OmegaConf.get_type(node) if OmegaConf.is_config(node) else None
    return kind is config.Recipe and last in ("clip_norm", "ema_decay", "patience")


def _unquoted(value: Any) -> Any:
    return value.text if hasattr(value, "text") else value


def _typed_in_vain(verb: str, cfg: DictConfig, cell: Sequence[Override]) -> list[str]:
    """Refuse what the verb, or the chosen loss, would never read."""
    problems = []
    for override in cell:
        key = str(override.key_or_group)
        root = re.split(r"[.@]", key.split("@")[-1])[0]
        if (why := config.IGNORED[verb].get(root)) and root in (key.split("@")[0].split(".")[0], key.split("@")[-1]):
            problems.append(f"{override.input_line}: kdrun {_spoken(verb)} ignores {root}: {why}")
    if verb == "distill":
        terms = OmegaConf.to_container(cfg.loss, resolve=False)
        text = repr({name: node for name, node in terms.items() if name != "ce"})  # type: ignore[union-attr]
        typed = {str(o.key_or_group) for o in cell}
        names = [str(n) for n in terms if n != "ce"]  # type: ignore[union-attr]
        for key in ("alpha", "T"):
            if key in typed and "${" + key + "}" not in text:
                own = ", ".join(f"loss.{n}.{'weight' if key == 'alpha' else key}" for n in names)
                problems.append(f"{key}: the chosen loss ({', '.join(names)}) does not read it; its own keys: {own}")
    return problems


def uses_alpha(cfg: DictConfig) -> bool:
    """Say whether alpha weighs every chosen loss (the hard term then weighs 1 - alpha)."""
    terms: Any = OmegaConf.to_container(cfg.loss, resolve=False)
    return all(node.get("weight") == "${alpha}" for name, node in terms.items() if name != "ce")


def output_root_problem(outputs: str) -> str | None:
    """Say why results could not be written below `outputs`, without making it."""
    path = Path(outputs).expanduser().absolute()
    while not path.exists():
        path = path.parent
    if not path.is_dir():
        return f"outputs={outputs}: {path} is a file; choose a folder with outputs=DIR or KDRUN_OUTPUTS"
    try:
        with tempfile.TemporaryDirectory(dir=path):  # the only test that is true of every file system and user
            return None
    except OSError as error:
        why = error.strerror or error
        return f"outputs={outputs}: {path} cannot be written ({why}); choose a folder with outputs=DIR or KDRUN_OUTPUTS"


def _unparsed(text: str, error: str) -> str:
    if "=" not in text:
        return f"{text}: settings are typed as KEY=VALUE; kdrun --help lists the verbs"
    first = error.splitlines()[0] if error else "cannot be read"
    return f"{text}: {first} (quote what holds spaces or brackets: 'KEY=[a,b]')"


def _plain(error: Exception) -> str:
    text = str(error.__cause__ or error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not re.match(r"(full_key|object_type|reference_type|Set the environment)", line)]
    key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
    message = " ".join(kept[:2])
    return f"{key}: {message}" if key and key not in message else message


def _spoken(verb: str) -> str:
    return verb.replace("_", " ")


def _once(problems: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(problems))
