"""What an experiment adds to a command line besides its configuration: a sweep, and settings for a quick trial run.

    sweep: {T: [1, 2, 4]}   # kdrun distill experiment=NAME then means kdrun distill -m experiment=NAME T=1,2,4
    quick: {student: mlp}   # budget=quick adds these words

Typed words take precedence. With budget=quick, an experiment whose data set is not on this machine runs on digits.
Does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from kdrun import checks
from kdrun.command import overrides, preflight, roles, unread
from kdrun.command.composing import Loader, hydra_with

DIGITS = {  # an experiment runs in seconds with these
    "dataset": "digits",
    "teacher": "digits_teacher",
    "student": "digits_student",
    "recipe": "quick",
    "recipe@teacher.recipe": "quick",
    "recipe.epochs": 40,
    "teacher.recipe.epochs": 40,
}
REPLACED = {  # a key of an experiment: the typed keys that replace it
    "teacher": ("teachers", "teacher.from"),
    "teachers": ("teacher", "teacher.from"),
    "student": ("students", "generations"),
}


@dataclass
class Additions:
    """The words added to those typed, the lines to print about them, the notes for the run's record, and problems."""

    words: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def additions(
    verb: str,
    words: Sequence[str],
    *,
    shown: bool,
    here: Callable[[str, str | None], bool],
    loader: Loader | None = None,
) -> Additions:
    """Return what the experiments among `words` add; nothing if there are none, or if one does not compose.

    The preflight reports what is wrong with the words. With `shown`, the command only prints its configuration, so
    no sweep is added. `here` returns whether a data set, given its `use` and `root`, is on this machine.
    """
    if not any(word.startswith("experiment=") for word in words):
        return Additions()
    with hydra_with(loader or Loader()):
        try:
            known = GlobalHydra.instance().config_loader()
            typed = OverridesParser.create(config_loader=known).parse_overrides(list(words))
            by_name = {name: _of(verb, name, typed, here) for name in _names(typed)}
        except preflight.NOT_COMPOSED:
            return Additions()
    first, *others = by_name.values() or [Additions()]
    if any(other.words != first.words for other in others):
        name = next(name for name, one in by_name.items() if one.words)
        problem = f"experiment={name} sets {' '.join(by_name[name].words)}, and not all of these experiments do"
        return Additions(problems=[f"{problem}; run them one at a time"])
    if shown:
        first.words = [word for word in first.words if not several([word])]
    return first


def several(words: Sequence[str]) -> bool:
    """Return whether any of these words gives more than one value, so that they make a sweep."""
    return any(override.is_sweep_override() for override in OverridesParser.create().parse_overrides(list(words)))


def _names(typed: Sequence[Override]) -> list[str]:
    """Return the names of the chosen experiments."""
    chosen = next(o for o in reversed(typed) if overrides.group(o) == "experiment")
    return list(map(str, chosen.sweep_string_iterator())) if chosen.is_sweep_override() else [str(chosen.value())]


def _of(verb: str, name: str, typed: Sequence[Override], here: Callable[[str, str | None], bool]) -> Additions:
    """Return what one experiment adds to these words."""
    keys = {o.get_key_element() for o in typed}
    choices = [o for o in typed if overrides.is_choice(o) and not o.is_sweep_override()]
    chosen = [o.input_line or "" for o in choices if not o.get_key_element().startswith(("experiment", "hydra"))]
    cfg = compose(verb, [*chosen, f"experiment={name}"], return_hydra_config=True)
    sweep, quick = (roles.values(cfg[key], resolve=True) for key in ("sweep", "quick"))
    # a list, or a sweep in Hydra's syntax, such as range(1,5)
    if wrong := [key for key, value in sweep.items() if not value or not isinstance(value, list | str)]:
        return Additions(problems=[f"experiment={name}: sweep.{key} needs a list of values" for key in wrong])
    away = not {"dataset", "dataset.root"} & keys and not here(cfg.dataset.use, cfg.dataset.get("root"))
    if cfg.hydra.runtime.choices["budget"] != "quick":
        quick = {}
    elif away:
        quick = {key: value for key, value in quick.items() if not _replaced(key, DIGITS)} | DIGITS
    small = _words(verb, quick, keys)
    swept = {k: v if isinstance(v, str) else ",".join(map(checks.as_typed, v)) for k, v in sweep.items()}
    words = [*_words(verb, {k: v for k, v in swept.items() if not _replaced(k, quick)}, keys), *small]
    notes = [_note(name, cfg.hydra.runtime.choices["dataset"] if away else None, small)] if small else []
    tried = [word for word in words if several([word])]
    return Additions(
        words, [*([f"experiment={name} is a sweep: -m {' '.join(tried)}"] if tried else []), *notes], notes
    )


def _note(name: str, away: str | None, small: Sequence[str]) -> str:
    """Return how budget=quick changes an experiment; `away` names a data set that is not on this machine."""
    if away is None:
        return f"budget=quick runs experiment={name} with {' '.join(small)}: a trial run, not a result"
    return (
        f"{away} is not on this machine, so budget=quick runs experiment={name} on digits with suitable networks; "
        "without budget=quick the data are downloaded"
    )


def _words(verb: str, settings: Mapping[str, Any], typed: Collection[str]) -> list[str]:
    """Return settings as words, without those that the verb does not read or that a typed word replaces."""
    words = [f"{key}={checks.as_typed(value)}" for key, value in settings.items() if not _replaced(key, typed)]
    parsed = OverridesParser.create().parse_overrides(words)
    return [word for word, o in zip(words, parsed, strict=True) if unread.ignored(verb, o) is None]


def _replaced(key: str, typed: Collection[str]) -> bool:
    """Return whether a key is typed itself, or belongs to a choice that a typed key replaces."""
    place, _, rest = key.partition(".")
    if key in typed:
        return True
    if rest.startswith("recipe"):
        return False
    return any(other in typed for other in (*REPLACED.get(place, ()), *([place] if rest else [])))
