"""A spec holds everything that determines the result of one training, and its fingerprint identifies it.

A spec has no paths, devices or worker counts, so that the same training is found again from anywhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

ANSWERS = "answers.Answers"  # the value of `use` for a teacher that is a file of another model's answers
NUMERICS = 2  # increased whenever a change of kdrun changes results

KINDS = {
    **dict.fromkeys(("data", "model", "objective", "recipe"), dict),
    **dict.fromkeys(("seed", "numerics"), int),
    **dict.fromkeys(("teachers", "peers"), list),
    "precision": str,
    "compiled": bool,
    "bank": dict,
}
ITEMS = {"teachers": str, "peers": dict}


@dataclass(frozen=True)
class Spec:
    """Everything that determines the result of one training, as JSON values."""

    data: Mapping[str, Any]  # content hash, split and transfer set, augmentation, normalisation
    model: Mapping[str, Any]  # `use` and its arguments, shapes, hash of code from outside kdrun
    objective: Mapping[str, Any]  # term name -> its settings and weight
    recipe: Mapping[str, Any]
    seed: int
    precision: str
    teachers: tuple[str, ...] = field(default=())  # their fingerprints
    peers: tuple[Mapping[str, Any], ...] = field(default=())  # model and recipe of the networks that train beside it
    compiled: bool = False  # with torch.compile, which sums in another order
    bank: Mapping[str, Any] = field(default_factory=dict)  # how the teachers' logits are rounded: dtype, top_k
    numerics: int = NUMERICS

    @cached_property
    def fingerprint(self) -> str:
        """The first 12 hex digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:12]

    @property
    def answered(self) -> bool:
        """Whether the spec describes another model's answers to the training images instead of a network."""
        return bool(self.model.get("use") == ANSWERS)

    def canonical(self) -> str:
        """Return the spec as canonical JSON."""
        return canonical(self._values())

    def json(self) -> str:
        """Return the spec as JSON for people, sorted and indented."""
        return json.dumps(self._values(), sort_keys=True, indent=2, allow_nan=False) + "\n"

    def _values(self) -> dict[str, Any]:
        """Return the fields, omitting later additions that have their defaults, so that fingerprints do not change."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        if not self.peers:
            del values["peers"]
        if not self.compiled:
            del values["compiled"]
        if not self.bank:
            del values["bank"]
        return values

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """Return the spec from a text that `json` or `canonical` wrote. Raise ValueError for any other text."""
        try:
            values = json.loads(text)
            wrong = [name for name, value in values.items() if type(value) is not KINDS[name]]
            wrong += [name for name, kind in ITEMS.items() if any(type(v) is not kind for v in values.get(name, ()))]
            if wrong:
                raise ValueError(f"not a spec: {wrong[0]} has the wrong type")
            spec = cls(**{**values, "teachers": tuple(values["teachers"]), "peers": tuple(values.get("peers", ()))})
            spec.canonical()  # which refuses NaN
        except (AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a spec ({error!r})") from None
        return spec


def canonical(value: Any) -> str:
    """Return a value as JSON with sorted keys and no spaces, with 4.0 as 4. Raise ValueError if it holds NaN."""
    return canonical_text(_typeless(value))


def canonical_text(value: Any) -> str:
    """Return a value as JSON with sorted keys and no spaces. Raise ValueError if it holds NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_float(value: float) -> float:
    """Return a whole number as an integer: 4 and 4.0 are the same training."""
    return int(value) if value.is_integer() else value


def differences(a: Spec, b: Spec) -> list[str]:
    """List the dotted keys in which two specs differ."""
    left, right = (dict(leaves(json.loads(s.canonical()))) for s in (a, b))
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every dotted key of nested mappings with its value; an empty mapping counts as a value."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def _typeless(value: Any) -> Any:
    """Return a value with whole floats as integers at any depth: 4 and 4.0 are the same training."""
    if value is None or isinstance(value, str | int):  # first, because most values are, and a Mapping is slow to tell
        return value
    if isinstance(value, float):
        return canonical_float(value)
    if isinstance(value, Mapping):
        return {key: _typeless(v) for key, v in value.items()}
    return [_typeless(v) for v in value] if isinstance(value, list | tuple) else value


def finite(value: Any) -> Any:
    """Return a value for JSON, with null for NaN and infinities, which JSON lacks."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(v) for key, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value
