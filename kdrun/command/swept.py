"""The values of a sweep or a search: which values cannot be tried, and which cells to check in advance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep

from kdrun.command import groups, overrides

MOST_CELLS = 10_000  # all are composed before the first one trains, in about 25 ms each


def too_many(fit: Sequence[Override]) -> str | None:
    """Return why a sweep has too many cells, or None. Counting stops at the limit, because of range(1,1e9)."""
    cells = 1
    for override in fit:
        if override.is_sweep_override():
            cells *= sum(1 for _ in itertools.islice(override.sweep_string_iterator(), MOST_CELLS + 1))
        if cells > MOST_CELLS:
            return f"{overrides.typed(override)}: more than {MOST_CELLS:,} cells; type fewer values, or several sweeps"
    return None


def ends(space: Sequence[Override]) -> list[list[str]]:
    """Return cells that cover a search space: all discrete values and both ends of intervals.

    The first cell has every key's first value; each of the others changes one key.
    """
    values: list[list[str]] = []
    for override in space:
        key, value = override.get_key_element(), override.value()
        if not override.is_sweep_override():
            values.append([override.input_line or ""])
        elif isinstance(value, IntervalSweep):
            values.append([f"{key}={value.start}", f"{key}={value.end}"])
        elif isinstance(value, RangeSweep) and not value.shuffle:
            values.append([f"{key}={value.start}", f"{key}={value.stop}"])  # a search tries the stop too
        else:
            values.append([f"{key}={one}" for one in override.sweep_string_iterator()])
    first = [own[0] for own in values]
    return [first, *([*first[:i], one, *first[i + 1 :]] for i, own in enumerate(values) for one in own[1:])]


def twice(typed: Sequence[Override]) -> list[str]:
    """Return which swept keys are typed more than once: all but one of these words would have no effect."""
    words: dict[str, list[Override]] = {}
    for override in typed:
        words.setdefault(override.get_key_element(), []).append(override)
    return [
        f"{' and '.join(map(overrides.typed, same))}: {key} is given {len(same)} times; in a sweep give it once"
        for key, same in words.items()
        if len(same) > 1 and any(override.is_sweep_override() for override in same)
    ]


def replaced(typed: Sequence[Override]) -> list[Override]:
    """Return the overrides whose key is typed again later: Hydra's sweeper drops them, but only after reading them."""
    return [o for n, o in enumerate(typed) if o.get_key_element() in {p.get_key_element() for p in typed[n + 1 :]}]


def typed_again(words: Sequence[str]) -> list[str]:
    """Return which words have no effect, because the same key is typed again after them."""
    parsed = [override for word in words if isinstance(override := overrides.parse(word), Override)]
    return [
        f"{overrides.typed(override)} has no effect: {override.get_key_element()} is typed again"
        for override in replaced(parsed)
    ]


def wrong_space(override: Override) -> str | None:
    """Return why a search cannot try a key's values, or None."""
    value, typed = override.value(), overrides.typed(override)
    if isinstance(value, Glob):
        return f"{typed}: a search does not take globs; type the names, separated by commas"
    if not isinstance(value, IntervalSweep):
        return None
    if value.start is None or value.end is None or not value.start < value.end:
        return f"{typed}: an interval needs two increasing numbers"
    if "log" in value.tags and value.start <= 0:
        return f"{typed}: on a logarithmic scale both ends must be above 0"
    return None


def wrong_sweep(override: Override, dirs: Sequence[Path]) -> str | None:
    """Return why a sweep cannot try a key's values, or None."""
    if not override.is_sweep_override():
        return None
    value, typed = override.value(), overrides.typed(override)
    if not override.is_discrete_sweep():
        return f"{typed}: an interval needs hydra/sweeper=optuna; else type range(start,stop,step) or the values"
    if getattr(value, "shuffle", False):
        return f"{typed}: a sweep's cells are numbered in the order typed; type it without shuffle"
    if isinstance(value, Glob) and not list(override.sweep_string_iterator()):
        group = overrides.group(override)
        names = groups.options(group, dirs) if group in groups.GROUPS else []
        nested = f" (names with a slash are listed one by one: {group}=A/B,A/C)" if any("/" in n for n in names) else ""
        return f"{typed}: matches nothing; {group} has {', '.join(names) or 'no choices'}{nested}"
    return None
