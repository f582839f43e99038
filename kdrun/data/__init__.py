"""Data sets: one source per file, beside one `conf/dataset/NAME.yaml` that lists its arguments.

A YAML's `use: module.function` names a function in that module's `__all__` that returns a `Dataset`. torch is
imported when a set is loaded, not before.
"""

import functools
import importlib
import inspect
import json
import os
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kdrun.checks import nearest

if TYPE_CHECKING:
    from kdrun.data.sets import Dataset

__all__ = ["find", "load"]


def load(use: str, *, name: str, **arguments: Any) -> "Dataset":
    """Return the data set of `use` and its arguments, called `name` in messages and tables.

    The last few are kept, so a sweep reads each once per process. Raise ValueError if something does not exist, is
    out of range, or is wrong with the files.
    """
    typed = json.dumps(arguments, sort_keys=True)
    places = tuple(os.environ.get(variable) for variable in ("KDRUN_DATA", "KDRUN_CACHE", "HOME"))
    return _load(use, name, typed, places, os.getcwd())


@functools.lru_cache(maxsize=3)
def _load(use: str, name: str, typed: str, places: tuple[str | None, ...], folder: str) -> "Dataset":
    arguments = json.loads(typed)
    function = find(use)
    signature = inspect.signature(function)
    try:
        signature.bind(name=name, **arguments)
    except TypeError as error:
        keys = ", ".join(key for key in signature.parameters if key != "name")
        raise ValueError(f"dataset {name}: {error}; {use} takes {keys}") from None
    return function(name=name, **arguments)


def find(use: str) -> "Callable[..., Dataset]":
    """Return the function that `use` names, e.g. `digits.digits`. Raise ValueError, with those that exist, if none."""
    file = use.partition(".")[0]
    files = [module.name for module in pkgutil.iter_modules(__path__)]
    if file not in files:
        raise ValueError(f"use={use}: kdrun.data has no {file}.{nearest(file, files)} Existing: {', '.join(files)}")
    module = importlib.import_module(f"{__name__}.{file}")
    functions = {f"{file}.{key}": getattr(module, key) for key in getattr(module, "__all__", ())}
    if use not in functions:
        existing = ", ".join(functions) or "no data set"
        raise ValueError(f"use={use}: kdrun.data.{file} has {existing}.{nearest(use, functions)}")
    function: Callable[..., Dataset] = functions[use]
    return function
