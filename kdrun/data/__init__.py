"""Data sets: one source per file, beside one `conf/dataset/NAME.yaml` that lists its arguments.

A YAML's `use: module.function` names a function in that module's `__all__` that returns a `Dataset`, and
`use: package.module:function` one of the user's own that returns arrays (arrays.py). torch is imported when a set is
loaded, not before.
"""

import functools
import importlib
import inspect
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kdrun import own
from kdrun.checks import modules, nearest

if TYPE_CHECKING:
    from kdrun.data.sets import Dataset

__all__ = ["find", "load"]

AUGMENTATION = ("crop_padding", "flip")  # keys of a data set that augment.crop_flip refers to
OWN = own.Kind("data set", "functions", "a function that returns arrays (docs/own-data.md)", inspect.isfunction)


def load(use: str, *, name: str, **arguments: Any) -> "Dataset":
    """Return the data set of `use` and its arguments, called `name` in messages and tables.

    The last three are kept, so a sweep reads each once per process. Settings of the usual augmentation are ignored.
    Raise ValueError if something does not exist, is out of range, or is wrong with the files.
    """
    arguments = {key: value for key, value in arguments.items() if key not in AUGMENTATION}
    code = own.whole_digest(find(use), f"dataset={name}: use={use}") if own.is_own(use) else None
    typed = json.dumps(arguments, sort_keys=True)
    places = tuple(os.environ.get(variable) for variable in ("KDRUN_DATA", "KDRUN_CACHE", "HOME"))
    return _load(use, name, typed, places, os.getcwd(), code)


@functools.lru_cache(maxsize=3)
def _load(use: str, name: str, typed: str, places: tuple[str | None, ...], folder: str, code: str | None) -> "Dataset":
    arguments = json.loads(typed)
    if code is not None:
        from kdrun.data.arrays import arrays

        return arrays(find(use), use, name=name, **arguments)
    function = find(use)
    signature = inspect.signature(function)
    try:
        signature.bind(name=name, **arguments)
    except TypeError as error:
        keys = ", ".join(key for key in signature.parameters if key != "name")
        raise ValueError(f"dataset {name}: {error}; {use} takes {keys}") from None
    loaded: Dataset = function(name=name, **arguments)
    return loaded


def find(use: str) -> Callable[..., Any]:
    """Return the function that `use` names, e.g. `digits.digits`, or `package.module:function` of the user's own.

    Raise ValueError, with the names that exist, if there is no such function.
    """
    if own.is_own(use):
        return own.resolve(use, OWN)  # type: ignore[no-any-return]
    file = use.partition(".")[0]
    files = modules(*__path__)
    if file not in files:
        raise ValueError(f"use={use}: kdrun.data has no {file}.{nearest(file, files)} Available: {', '.join(files)}")
    module = importlib.import_module(f"{__name__}.{file}")
    functions = {f"{file}.{key}": getattr(module, key) for key in getattr(module, "__all__", ())}
    if use not in functions:
        existing = ", ".join(functions) or "no data set"
        raise ValueError(f"use={use}: kdrun.data.{file} has {existing}.{nearest(use, functions)}")
    function: Callable[..., Any] = functions[use]
    return function
