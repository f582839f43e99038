"""Checks of typed values: ranges, choices, types, paths, and the nearest existing word. Does not import torch."""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import importlib.util
import math
import os
import pkgutil
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NewType, Union, get_args, get_origin

from kdrun import signals

Word = NewType("Word", str)  # a string that may not be a number: a file, a name
ROOM_BYTES = 4_096  # less than the records of any run take
UNSET: dict[str, Any] = {  # types of keys that are null by default
    "weight": float | None,
    "weights": Word | None,
    "negatives": int | None,
    "top_k": int | None,
    "student_layer": Word | None,
    "teacher_layer": Word | None,
    "student_layers": list[str] | None,
    "teacher_layers": list[str] | None,
}


def _name(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def in_range(
    where: str,
    key: str,
    value: float | None,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
) -> list[str]:
    """Return what is wrong with a number if it is out of range; None (not set) passes."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return []
    bad = (
        not math.isfinite(value)
        or (low is not None and value < low)
        or (above is not None and value <= above)
        or (high is not None and value > high)
        or (below is not None and value >= below)
    )
    left = f"[{_written(low)}" if low is not None else f"({_written(above)}" if above is not None else "(-inf"
    right = f"{_written(high)}]" if high is not None else f"{_written(below)})" if below is not None else "inf)"
    return [f"{_name(where, key)}={_written(value)}: must lie in {left}, {right}"] if bad else []


def _written(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def one_of(where: str, key: str, value: str, allowed: Sequence[str]) -> list[str]:
    """Return what is wrong with a word if it is not one of those allowed."""
    return [] if value in allowed else [f"{_name(where, key)}={value}: choose {', '.join(allowed)}"]


def short(text: str) -> str:
    """Return a text with its middle left out if it has more than 200 characters."""
    return text if len(text) <= 200 else f"{text[:100]}…{text[-50:]} ({len(text)} characters)"


def typed_path(typed: str, where: str = "") -> Path:
    """Return a typed path with ~ expanded; it need not exist.

    Raise ValueError, with a message that begins with `where`, if no such path can exist.
    """
    try:
        typed.encode()
        place = Path(typed).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            place.stat()
        return place
    except UnicodeEncodeError:
        why = "it is not valid UTF-8"
    except ValueError:
        why = "it contains a NUL character"
    except RuntimeError:
        why = "there is no such user"
    except OSError as error:
        why = error.strerror or str(error)
    raise ValueError(f"{where}{short(os.fsencode(typed).decode(errors='replace'))}: {why}")


def typed_folder(typed: str, where: str) -> Path:
    """Return a folder that was typed; it need not exist.

    Raise ValueError like typed_path, and if the path or one above it is a file.
    """
    place = typed_path(typed, where)
    first = next(one for one in (place.absolute(), *place.absolute().parents) if one.exists())
    if first.is_dir():
        return place
    raise ValueError(f"{where}{short(typed)}: {first} is a file")


def no_room(path: Path) -> str | None:
    """Return why nothing can be written at an absolute `path`, or None; tests the nearest folder that exists."""
    try:
        while not os.path.lexists(path):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.lstat()  # another error than a missing file means that the name is impossible
            path = path.parent
        if not path.is_dir():
            return f"{path} is a file"
        # the only test that works on every file system, even a full one; signals wait until the file is removed
        with signals.StopFlag(), tempfile.TemporaryDirectory(dir=path) as made:
            Path(made, "test").write_bytes(b"\0" * ROOM_BYTES)
        return None
    except OSError as error:
        free = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = f"; {shutil.disk_usage(path).free / 1e6:.1f} MB are free there"
        return f"{short(str(path))} cannot be written ({error.strerror or error}{free})"


def file_and_entry(weights: str | Path) -> tuple[Path, str | None] | None:
    """Return the file of weights and the entry in it that FILE or FILE:ENTRY names; None if there is no such file."""
    whole = os.path.expanduser(weights)
    if os.path.isfile(whole):  # unlike Path.is_file, returns False for an impossible name
        return Path(whole), None
    name, colon, entry = whole.rpartition(":")
    return (Path(name), entry) if colon and entry and os.path.isfile(name) else None


def no_file(path: Path) -> str:
    """Return why `path` is not a file to read: it does not exist, or is no regular file, so that reading may block."""
    return "is not a regular file" if path.exists() else "there is no such file"


def installed(package: str) -> bool:
    """Return whether a package, or a module of one, could be imported; it is not imported."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # the module's package is missing
        return False
    return spec is not None and spec.origin is not None  # any folder of that name has a spec, without an origin


@functools.cache
def modules(*folders: str) -> list[str]:
    """Return the names of the modules in a package's folders, which are listed only once."""
    return [module.name for module in pkgutil.iter_modules(folders)]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean …?' for the known words closest to `word`, or nothing."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    folded = [k for k in known if k.lower() == word.lower() and k not in close]
    return f" Did you mean {' or '.join(folded + close)}?" if close or folded else ""


def nearest_beside(path: Path, usable: Callable[[Path], bool]) -> str:
    """Return ' Did you mean …?' for the usable names closest to a path's, in the folder in which it was looked for."""
    inside = path.parent.iterdir() if path.parent.is_dir() else ()
    return nearest(path.name, sorted(other.name for other in inside if usable(other)))


def leaves(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List every dotted key of a composed configuration, inner nodes too."""
    keys = []
    for key, value in node.items():
        keys.append(prefix + str(key))
        if isinstance(value, Mapping):
            keys += leaves(value, f"{prefix}{key}.")
    return keys


def type_of(key: str, default: Any) -> Any:
    """Return the type of a YAML file's default; null allows any type, except for a few known keys."""
    if default is None:
        return UNSET.get(key, Any)
    if isinstance(default, list):
        kinds = {type(item) for item in default}
        return list[kinds.pop()] if len(kinds) == 1 else list  # type: ignore[misc]
    return Word if isinstance(default, str) else type(default)


def type_problem(typed: str, value: Any, wanted: Any, default: Any) -> str | None:
    """Return what is wrong with the value of the word `typed` if it is not of the type `wanted`, or None."""
    if not _fits(value, wanted):
        key, _, one = typed.partition("=")
        if "a list" in _called(wanted) and isinstance(value, str | int | float) and not isinstance(value, bool):
            return f"{typed}: needs a list: type '{key}=[{one}]'"
        usual = f" (default: {as_typed(default)})" if default != "???" else ""
        return f"{typed}: needs {_called(wanted)}{usual}"
    numbers = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int | float)]
    if any(abs(v) > 2**63 if isinstance(v, int) else not math.isfinite(v) for v in numbers):
        return f"{typed}: the number is not finite, or too large"
    return None


def as_typed(value: Any) -> str:
    """Return a setting as it would be typed: null, true, [1,2]."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    return str(value)


def _fits(value: Any, wanted: Any) -> bool:
    """Return whether a value is of a type, which may be a union, a list of one type or Any."""
    if wanted is Any:
        return True
    if get_origin(wanted) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(wanted))
    if wanted in (NoneType, Word):
        return value is None if wanted is NoneType else isinstance(value, str)
    if get_origin(wanted) is list:
        return isinstance(value, list) and all(_fits(item, get_args(wanted)[0]) for item in value)
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    if is_dataclass(wanted):
        return isinstance(value, Mapping)
    allowed: dict[Any, tuple[type, ...]] = {float: (int, float), str: (str, int, float)}
    return isinstance(value, allowed.get(wanted, get_origin(wanted) or wanted))


def _called(wanted: Any) -> str:
    """Return a type in words."""
    if get_origin(wanted) in (Union, UnionType):
        return " or ".join(_called(one) for one in get_args(wanted))
    if get_origin(wanted) is list or wanted is list:
        return "a list such as [1,2]"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", NoneType: "null"}
    return "a string (not a number)" if wanted is Word else words.get(wanted, "a group of keys")


def reads(loss: Mapping[str, Any], key: str) -> bool:
    """Return whether a loss's unresolved settings use the root's `key`: T, or alpha if its weight is null."""
    if loss.get("weighed_by") == key and loss.get("weight") is None:
        return True
    if key == "T" and loss.get("teacher_T") is not None and loss.get("student_T") is not None:
        loss = {k: v for k, v in loss.items() if k != "T"}  # both temperatures are set, so T is not used
    return "${" + key + "}" in repr(dict(loss))
