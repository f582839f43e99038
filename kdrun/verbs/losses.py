"""kdrun losses: list the losses for loss=NAME, or check that one fulfils the contract of all losses."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kdrun import config
from kdrun.checks import as_typed, nearest
from kdrun.command.listings import description, files, node, words
from kdrun.results.tables import Table

FAMILIES = ("response", "feature", "relation", "contrastive", "mutual")
UNREADABLE = (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError)
"""Errors raised when a user's file contains something other than a loss's settings."""
LAYERS = ("student_layer", "teacher_layer", "student_layers", "teacher_layers")
"""Keys that name layers of real networks, which the contract's synthetic outputs do not have."""


def main(rest: Sequence[str]) -> int:
    """Print the list, one loss's settings with the sources of their defaults, or the checks of one."""
    if rest[:1] == ["check"]:
        return _check(rest[1:])
    name = words("losses", rest, "name").name
    paths = files("loss")
    if name is not None:
        return _one(name, _existing(name, paths))
    order = sorted(paths, key=lambda name: (FAMILIES.index(family(paths[name])), name))
    rows = [[family(p := paths[name]), name, _weight(p, name), description(p) + _whose(p)] for name in order]
    notes = [
        "weight: default of loss.NAME.weight (labels: loss.ce.weight); pair: experiment=cifar100/PAIR may set another",
        "kdrun losses NAME shows a loss's settings and their sources; 'loss=[kd,crd]' adds several",
        "a loss of your own: conf/loss/NAME.yaml with use: package.module:Class (docs/adding-a-method.md)",
    ]
    print(Table(["family", "name", "weight", "description"], rows, notes=notes).to_text())
    return 0


def settings(path: Path, name: str, T: float = 4.0, alpha: float = 0.9) -> dict[str, Any]:
    """Return a loss's settings with ${T} and the like resolved, and with alpha as its weight if alpha weighs it.

    Raise ValueError, with the file, if it cannot be read.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from kdrun.command import groups

    groups.resolvers()
    try:
        root = OmegaConf.create({"T": T, "alpha": alpha, "loss": node(path, name)})
        keys: dict[str, Any] = OmegaConf.to_container(root.loss, resolve=True)  # type: ignore[assignment]
    except (OmegaConfBaseException, *UNREADABLE) as error:
        raise ValueError(f"{os.path.relpath(path)}: {str(error).splitlines()[0]}") from None
    return {**keys, "weight": alpha} if keys.pop("weighed_by", None) else keys


def _check(rest: Sequence[str]) -> int:
    """Print which checks of the contract a loss passes; return 2 if it fails one, otherwise 0."""
    name, chosen, source = _asked(*_words(rest))
    from kdrun.losses import META, contract

    numbers = " ".join(f"{key}={as_typed(value)}" for key, value in chosen.items() if key not in META)
    results: list[str] = []
    for result in contract.check(contract.Subject(name, chosen)):
        if not results:
            print(f"{chosen['use']}{' with ' if numbers else ''}{numbers}{source}")
        state = "failed" if result.broken else "–" if result.left_out else "ok"
        reason = result.broken or result.left_out
        print(f"{state:<7} {result.title}{f': {reason}' if reason else ''}", flush=True)
        results.append(state)
    failed = results.count("failed")
    print(f"{len(results)} checks: {results.count('ok')} ok, {failed} failed, {results.count('–')} not applicable")
    return 2 if failed else 0


def _words(rest: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the loss to check, as typed, and its typed settings."""
    target, *typed = rest or [""]
    if not target or any("=" not in word for word in typed):
        raise ValueError("losses check: type kdrun losses check NAME, or package.module:Class, and perhaps KEY=VALUE")
    try:
        return target, {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in typed)}
    except yaml.YAMLError:
        raise ValueError(
            f"losses check: {' '.join(typed)}: is not understood; numbers are typed as KEY=VALUE"
        ) from None


def _asked(target: str, typed: Mapping[str, Any]) -> tuple[str, dict[str, Any], str]:
    """Return the name and settings of the loss to check, and the file of these settings for a message."""
    paths = files("loss")
    if ":" in target:
        mine = [name for name, path in paths.items() if _use(path, name) == target]
    else:
        _existing(target, paths)
        mine = [target]
    if not mine:
        from kdrun.losses import contract, find

        return "mine", {"use": target, **contract.usual_arguments(find(target)), **typed}, ""
    name = mine[0]
    chosen = {key: None if key in LAYERS else value for key, value in settings(paths[name], name).items()}
    return name, {**chosen, **typed}, f" ({os.path.relpath(paths[name])})"


def _existing(name: str, paths: Mapping[str, Path]) -> Path:
    if name not in paths:
        raise ValueError(f"{name}: there is no such loss.{nearest(name, paths)} Available: {', '.join(paths)}")
    return paths[name]


def _use(path: Path, name: str) -> Any:
    try:
        return node(path, name).get("use")
    except UNREADABLE:
        return None


def _whose(path: Path) -> str:
    """Return a note with the file if a loss is the user's own; empty for kdrun's losses."""
    return "" if path.is_relative_to(config.CONF) else f" (your own: {os.path.relpath(path)})"


def family(path: Path) -> str:
    """Return the family that a loss's file names, or the first family: a user's own file may name none."""
    named = re.search(r"^# family: (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return named[1] if named and named[1] in FAMILIES else FAMILIES[0]


def _one(name: str, path: Path) -> int:
    print(f"{name}: {description(path)}\n")
    print(f"settings (loss.{name}.KEY=VALUE), from {path}:")
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("# @")) + 1
    print("\n".join(f"  {line}" for line in lines[first:] if not line.startswith("# family:")))
    return 0


def _weight(path: Path, name: str) -> str:
    try:
        settings = node(path, name)
        if settings["weight"] is None:
            return as_typed(settings.get("weighed_by"))
        value = as_typed(settings["weight"])
        if published := re.fullmatch(r"\$\{kdrun\.published:[\w.]+,\s*([\d.e-]+)\}", value):
            return f"{float(published[1]):g} (pair)"
        return value.strip("${}") if value.startswith("${") else f"{float(value):g}"
    except UNREADABLE:  # choosing this loss reports what is wrong
        return "unreadable"
