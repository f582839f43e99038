"""Losses: one file per published method, beside one `conf/loss/NAME.yaml` that lists its arguments.

A YAML's `use: module.Class` names a `Term` in that module's `__all__`.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

from kdrun.checks import nearest
from kdrun.losses.base import Heard, Objective, Term

__all__ = ["build", "find"]

SHARED = ("base", "layers")
META = ("use", "weight", "weighed_by", "hard_weight", "heard")
"""Keys of a node that are not the term's arguments: the class, the weight, the root key that is the weight
if that is null, the weight that the paper gives to the labels' cross-entropy, and the teachers, of several, that the
term compares the student with."""


def build(terms: Mapping[str, Mapping[str, Any]]) -> Objective:
    """Return the objective of these terms: `{name: {use, weight, and the term's arguments}}`.

    If there are several teachers, a node's `heard` is {teachers: positions, weights: of sum 1}.
    Raise ValueError, with the term's name, if something does not exist, is missing or is out of range.
    """
    weighted: dict[str, tuple[float, Term]] = {}
    heard = {
        name: Heard(tuple(node["heard"]["teachers"]), tuple(node["heard"]["weights"]))
        for name, node in terms.items()
        if node.get("heard")
    }
    for name, node in terms.items():
        if (by := node.get("weighed_by")) not in (None, "alpha"):
            raise ValueError(f"loss.{name}.weighed_by={by}: choose alpha")
        if missing := [key for key in ("use", "weight") if node.get(key) is None]:
            raise ValueError(f"loss.{name}: {' and '.join(missing)} missing; every term has both")
        arguments = {key: value for key, value in node.items() if key not in META}
        try:
            cls = find(node["use"])
            signature = inspect.signature(cls)
            signature.bind(**arguments)
            weighted[name] = (node["weight"], cls(**arguments))
        except ValueError as error:
            raise ValueError(f"loss.{name}: {error}") from None
        except TypeError as error:  # of bind: an argument too few or too many
            raise ValueError(f"loss.{name}: {error}; {node['use']} takes {signature}") from None
    return Objective(weighted, heard)


def find(use: str) -> type[Term]:
    """Return the class that `use` names, e.g. `kd.KD`. Raise ValueError, with those that exist, if there is none."""
    file = use.partition(".")[0]
    files = [module.name for module in pkgutil.iter_modules(__path__) if module.name not in SHARED]
    if file not in files:
        raise ValueError(f"use={use}: kdrun.losses has {', '.join(files)}.{nearest(file, files)}")
    module = importlib.import_module(f"{__name__}.{file}")
    listed = {f"{file}.{name}": getattr(module, name) for name in module.__all__}
    classes: dict[str, type[Term]] = {
        name: value for name, value in listed.items() if inspect.isclass(value) and issubclass(value, Term)
    }
    if use not in classes:
        raise ValueError(f"use={use}: kdrun.losses has {', '.join(classes)}.{nearest(use, classes)}")
    return classes[use]
