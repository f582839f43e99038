"""The JSON files that kdrun reads back, sealed with a schema version and a checksum of their content.

A seal shows damage. It is no signature: whoever rewrites a file on purpose can seal it again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from kdrun.records import NEEDED
from kdrun.spec import canonical_float, canonical_text

SCHEMA = 2  # files of version 1 have neither `schema` nor `checksum`
Record = TypeVar("Record")


class Newer(ValueError):
    """A file was written by a later version of kdrun; it is not damaged."""


def seal(content: Mapping[str, Any]) -> bytes:
    """Return the content of a record's file, sealed. Raise ValueError if the record has NaN or an infinity."""
    text = json.dumps({**content, "schema": SCHEMA}, allow_nan=False)
    whole = json.loads(text)  # as it will be read
    return (_indented({**whole, "checksum": _checksum(text)}, 3) + "\n").encode()


def _indented(value: Any, levels: int, margin: str = "\n") -> str:
    """Return JSON of which the outer levels are indented and what is deeper stands on one line.

    Python's encoder takes ten times as long with `indent`.
    """
    if levels == 0 or not value or not isinstance(value, dict | list):
        return json.dumps(value)
    inner = f"{margin}  "
    if isinstance(value, dict):
        lines = [f"{json.dumps(key)}: {_indented(one, levels - 1, inner)}" for key, one in value.items()]
        return f"{{{inner}{f',{inner}'.join(lines)}{margin}}}"
    return f"[{inner}{f',{inner}'.join(_indented(one, levels - 1, inner) for one in value)}{margin}]"


def read(path: Path, record: type[Record]) -> Record:
    """Return a file's content as the given record type of kdrun/records.py, without its checksum.

    Raise ValueError, with the reason, if it is damaged or of another kind, Newer if a later kdrun wrote it, and OSError
    if it cannot be read. A file of version 1 has no checksum; see `is_sealed`.
    """
    if path.exists() and not path.is_file():  # reading from a pipe would block
        raise ValueError("it is not a regular file")
    text = path.read_text(encoding="utf-8")
    try:
        _check(text, cast(Any, record))
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    content.pop("checksum", None)
    return cast(Record, content)


@lru_cache(maxsize=256)  # a command reads the result of a network many times
def _check(text: str, record: type) -> None:
    """Raise ValueError if a file's text is no such record, or does not match its seal."""
    content = json.loads(text, parse_constant=_refuse)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    _check_seal(content, text)
    if misfit := _misfit(content, record):
        raise ValueError(misfit)


def is_sealed(record: Mapping[str, Any]) -> bool:
    """Return whether a record that was read had a seal; those of version 1 had none."""
    return "schema" in record


def _check_seal(content: Mapping[str, Any], text: str) -> None:
    if not content.keys() & {"schema", "checksum"}:
        return
    if isinstance(schema := content.get("schema"), int) and schema > SCHEMA:
        raise Newer(f"a later kdrun wrote it, in schema {schema}; this one reads up to {SCHEMA}")
    if content.get("checksum") != _checksum(text):
        raise ValueError("its content does not match its checksum")


def _checksum(text: str) -> str:
    """Return the sha256 of a record's canonical JSON (see spec.canonical, which takes values), without its checksum."""
    content = json.loads(text, parse_float=lambda number: canonical_float(float(number)))
    content.pop("checksum", None)
    return hashlib.sha256(canonical_text(content).encode()).hexdigest()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it contains {constant}, which is not a number")


@cache
def _keys(record: type) -> dict[str, Any]:
    return get_type_hints(record, include_extras=True)


def _misfit(value: Any, declared: Any, where: str = "") -> str | None:
    """Return where and how a JSON value differs from its type in kdrun/records.py; None if it fits.

    For a TypedDict, the keys in NEEDED must exist; others may be absent or null, because older versions lack some.
    """
    kind, arguments = get_origin(declared) or declared, get_args(declared)
    if kind is Any:
        return None
    if kind is Annotated:
        return _misfit(value, arguments[0], where) or _beyond(value, arguments[1], where)
    if kind in (Union, UnionType):
        (other,) = (one for one in arguments if one is not NoneType)
        return None if value is None else _misfit(value, other, where)
    if is_typeddict(kind):
        if not isinstance(value, dict):
            return f"{where or 'it'} is not an object"
        needed = kind.__required_keys__ | NEEDED.get(kind, set())
        if missing := sorted(needed - value.keys()):
            return f"it has no {_at(where, missing[0])}"
        inner = {key: one for key, one in _keys(kind).items() if key in needed or value.get(key) is not None}
        misfits = (_misfit(value[key], one, _at(where, key)) for key, one in inner.items())
    elif kind is dict and isinstance(value, dict):
        misfits = (_misfit(one, arguments[1], _at(where, key)) for key, one in value.items())
    elif kind is list and isinstance(value, list):
        misfits = (_misfit(one, arguments[0], f"{where}[{number}]") for number, one in enumerate(value))
    else:
        return None if _is(value, kind) else f"{where} is not {NAMES[kind]}"
    return next(filter(None, misfits), None)


NAMES = {
    str: "a string",
    int: "a whole number",
    float: "a finite number",
    bool: "a boolean",
    dict: "an object",
    list: "a list",
}
LARGEST = 1e308  # so that every number is a finite float


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind in (int, float):
        return isinstance(value, (int, kind)) and -LARGEST <= value <= LARGEST
    return isinstance(value, kind)


def _beyond(value: Any, limit: Any, where: str) -> str | None:
    """Return how a value of the right type violates its limit: bounds, a pattern, or a TypedDict to fit as well."""
    if is_typeddict(limit):
        return _misfit(value, limit, where)
    if isinstance(limit, str):
        return None if re.fullmatch(limit, value) else f"{where} is not of the form {limit}"
    return None if limit[0] <= value <= limit[1] else f"{where} is {value}, not in [{limit[0]}, {limit[1]}]"


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
