"""Losses: one file per published method, beside one `conf/loss/NAME.yaml` that lists its arguments.

A YAML's `use: module.Class` names a `Term` in that module's `__all__`, and `use: package.module:Class` one of the
user's own.
"""

import copy
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from kdrun import config, memory, own
from kdrun.checks import modules, nearest
from kdrun.losses.base import Heard, Objective, Term

__all__ = ["build", "find", "identified", "refuse_mixing", "refuse_rounding", "strong_view"]

SHARED = ("base", "contract", "layers", "targets")
META = ("use", "weight", "weighed_by", "hard_weight", "heard", "digest", "strong")
"""Keys of a node that are not arguments of the term's class: the class, the weight, the root key that gives the weight
if `weight` is null, the paper's weight for the cross-entropy with the labels, the teachers that the term compares with
if there are several, the checksum of the code of a user's own term, and the augmentations of the strong view, for a
term that needs one."""
OWN = own.Kind(
    "loss",
    "losses",
    "a class that inherits from kdrun.losses.base.Term (docs/adding-a-method.md has an example)",
    lambda value: inspect.isclass(value) and issubclass(value, Term) and not value.__module__.startswith("kdrun."),
)


def build(terms: Mapping[str, Mapping[str, Any]]) -> Objective:
    """Return the objective of these terms: `{name: {use, weight, and the term's arguments}}`.

    With several teachers, a node may have `heard`: {teachers: positions, weights: numbers that sum to 1}.
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
        # a copy, because a term may change its arguments, which the spec shares
        arguments = copy.deepcopy({key: value for key, value in node.items() if key not in META})
        try:
            cls = find(node["use"])
            if own.is_own(node["use"]) and name in _kdruns():
                raise ValueError(
                    f"use={node['use']}: {name} is the name of one of kdrun's own losses; name it otherwise"
                )
            signature = inspect.signature(cls)
            signature.bind(**arguments)
            weighted[name] = (node["weight"], _made(cls, arguments))
        except ValueError as error:
            raise ValueError(f"loss.{name}: {error}") from None
        except TypeError as error:  # from bind: an argument is missing or unknown
            raise ValueError(f"loss.{name}: {error}; {node['use']} takes {signature}") from None
    return Objective(weighted, heard)


def identified(terms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the terms, with the checksum of the code added to a user's own terms, since it affects the result too."""
    known = {name: dict(node) for name, node in terms.items()}
    for name, node in known.items():
        if own.is_own(use := node["use"]):
            node["digest"] = own.whole_digest(find(use), f"loss.{name}: use={use}")
    return known


def strong_view(terms: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the augmentations of an objective's strong view, {name: {use, arguments}}; None if no term needs one.

    They belong to the term, not to the training's data, so the first view is the same for all losses, which can
    share batches, tables of logits and cohorts.
    Raise ValueError, with the terms' names, if they are missing, if no term reads them, or if two terms' differ.
    """
    chosen: dict[str, Mapping[str, Any]] = {}
    for name, node in terms.items():
        strong = node.get("strong")
        if not find(node["use"]).needs_strong:
            if strong is not None:
                raise ValueError(f"loss.{name}.strong: has no effect: {node['use']} does not set needs_strong = True")
        elif not isinstance(strong, Mapping) or not all(isinstance(settings, Mapping) for settings in strong.values()):
            raise ValueError(
                f"loss.{name}.strong: must list the augmentations that make the second view of each image, which "
                f"{node['use']} needs; write it as conf/loss/mlkd.yaml does"
            )
        else:
            chosen[name] = strong
    first, *others = chosen or [""]
    for other in others:
        if chosen[other] != chosen[first]:
            raise ValueError(
                f"loss.{first}.strong and loss.{other}.strong differ, and a batch has one strong view; make them equal"
            )
    return chosen.get(first)


def refuse_mixing(terms: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError if one of the terms cannot learn from mixed images, which have two labels and two indices."""
    for name, node in terms.items():
        cls = find(node["use"])
        if cls.needs_strong:
            why = "compares two views of each image"
        elif cls.takes_two_labels:
            continue
        elif cls.needs_labels:
            why = "reads one label of each image"
        elif cls.banks:
            why = "remembers each image in a bank"
        elif own.is_own(node["use"]) and not _says_that_it_reads_no_labels(cls):
            why = "may read labels (if it does not, write needs_labels = False into the class)"
        else:
            continue
        raise ValueError(
            f"loss.{name}: {why}, but mixup and cutmix make one image of two; choose an augment without them, "
            "such as augment=crop_flip, or a loss that takes mixed images, such as loss=kd or loss=dist"
        )


def refuse_rounding(terms: Mapping[str, Mapping[str, Any]], *, top_k: bool) -> None:
    """Raise ValueError if a term cannot learn from rounded logits or, with `top_k`, from the k largest logits alone."""
    for name, node in terms.items():
        cls = find(node["use"])
        if not cls.needs_teacher:
            continue
        if cls.needs_strong:
            raise ValueError(
                f"loss.{name}: compares two views of each image, but a bank holds the teacher's logits for only the "
                "first; leave out teacher.bank.dtype and teacher.bank.top_k"
            )
        if not cls.logits_only:
            raise ValueError(
                f"loss.{name}: reads more of the teacher than its logits, which a bank does not hold; leave out "
                "teacher.bank.dtype and teacher.bank.top_k"
            )
        if top_k and not (cls.takes_top_k and not node.get("standardize")):
            why = ", since it standardises them" if cls.takes_top_k else ""
            raise ValueError(
                f"loss.{name}: needs all logits{why}, but teacher.bank.top_k keeps only the largest; leave top_k "
                "out, or choose a KL divergence or a cross-entropy of probabilities, such as loss=kd"
            )


def _says_that_it_reads_no_labels(cls: type[Term]) -> bool:
    """Return whether a user's own class, or one of its bases below Term, sets `needs_labels`."""
    return any("needs_labels" in vars(base) for base in cls.__mro__[: cls.__mro__.index(Term)])


def find(use: str) -> type[Term]:
    """Return the class that `use` names, e.g. `kd.KD`, or `package.module:Class` of the user's own.

    Raise ValueError, with the names that exist, if there is no such class, or if it is not a Term.
    """
    use = str(use)
    if use.startswith(f"{__name__}."):
        raise ValueError(
            f"use={use}: kdrun's own losses are named as use: {use.removeprefix(f'{__name__}.').replace(':', '.')}"
        )
    if own.is_own(use):
        mine: type[Term] = own.resolve(use, OWN)
        return mine
    file = use.partition(".")[0]
    files = [name for name in modules(*__path__) if name not in SHARED]
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


def _made(cls: type[Term], arguments: Mapping[str, Any]) -> Term:
    """Return the term. Raise ValueError, with the place of the error, if a user's own constructor fails."""
    try:
        return cls(**arguments)
    except ValueError:
        raise
    except (Exception, SystemExit) as error:
        if memory.ran_out(error) or not OWN.fits(cls):
            raise
        raise ValueError(f"{cls.__name__} cannot be built: {own.words(error)}") from error


def _kdruns() -> set[str]:
    """Return the names of kdrun's own losses."""
    return {"ce", *(path.stem for path in (config.CONF / "loss").glob("*.yaml"))}
