"""The content of a store: every training in any state, read from its small files only."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdrun import banks, console
from kdrun.artifact import Damaged, Unreadable, read_result
from kdrun.records import ResultJson
from kdrun.results.tables import Table, per_cent
from kdrun.spec import leaves
from kdrun.store import Store

NAME = re.compile(r"(\w+)-(.+)-([0-9a-f]{12})(\.corrupt(?:\.\d+)?)?")  # of a training's folder, perhaps set aside
KEYS = ("role", "dataset", "model", "state")  # by which trainings can be filtered


@dataclass(frozen=True)
class Entry:
    """One folder of a store. `problem` says why it cannot be used."""

    folder: Path
    fingerprint: str
    state: str  # done, diverged, …; unfinished, training, damaged, unreadable, set aside
    role: str
    dataset: str
    model: str
    bytes: int
    when: str  # ISO, UTC
    problem: str = ""
    test: float | None = None  # accuracy in [0, 1]
    seconds: float = 0.0  # of training
    result: ResultJson = field(default_factory=lambda: ResultJson())

    @property
    def finished(self) -> bool:
        """Whether its training has ended, perhaps by diverging, and left a result that can be read."""
        return bool(self.result)

    @property
    def title(self) -> str:
        """Role, data set and model."""
        return f"{self.role} {self.dataset} {self.model}"


def entries(store: Store) -> list[Entry]:
    """Return all trainings of a store, the newest last. Raise ValueError if the store cannot be read."""
    try:
        folders = [folder for folder in store.root.iterdir() if NAME.fullmatch(folder.name) and folder.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ValueError(f"{store.root} cannot be read: {error.strerror or error}") from None
    return sorted((entry(store, folder) for folder in folders), key=lambda e: (e.when, e.folder.name))


def entry(store: Store, folder: Path) -> Entry:
    """Read one folder of a store."""
    parts = NAME.fullmatch(folder.name)
    assert parts is not None
    role, rest, fingerprint, aside = parts.groups()
    dataset, _, model = rest.partition("-")
    result: ResultJson = {}
    state, problem, test, seconds = "set aside", "", None, 0.0
    if aside is None:
        try:
            result = read_result(folder)
            role, dataset, model, state = result["role"], result["dataset"], result["model"], result["status"]
            selected = result["selected"]
            accuracy = selected["test"] if selected else None
            seconds, test = result["seconds"], accuracy["accuracy"] if accuracy else None
        except FileNotFoundError:
            state = "unfinished" if store.holder(fingerprint) is None else "training"
        except Unreadable as error:
            state, problem = "damaged" if isinstance(error, Damaged) else "unreadable", error.reason
    when = result.get("created") or datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat(timespec="seconds")
    names = (role, dataset, model)
    return Entry(folder, fingerprint, state, *names, _size(folder), str(when), problem, test, seconds, result)


def _size(folder: Path) -> int:
    """Return the bytes that a folder takes, as far as it can be read."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):  # gone meanwhile
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def chosen(every: Sequence[Entry], filters: Sequence[str]) -> list[Entry]:
    """Return the trainings that fit filters such as role=teacher. Raise ValueError if a filter cannot be met."""
    left = list(every)
    for word in filters:
        key, equals, value = word.partition("=")
        if key not in KEYS or not equals:
            raise ValueError(f"store list: {word}: filters are {', '.join(f'{k}=…' for k in KEYS)}, and -n N")
        known = sorted({str(getattr(e, key)) for e in every})
        if every and value not in known:
            raise ValueError(f"store list: {word}: there is none; {key} is one of {', '.join(known)}")
        left = [e for e in left if getattr(e, key) == value]
    return left


def named(every: Sequence[Entry], prefix: str, store: Store) -> Entry:
    """Return the one training whose fingerprint begins with `prefix`.

    Raise ValueError, naming what exists, if there is none or more than one.
    """
    fitting = [e for e in every if e.fingerprint.startswith(prefix) and e.state != "set aside"] if prefix else []
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        alike = ", ".join(f"{e.fingerprint} ({e.title})" for e in fitting[:5])
        raise ValueError(f"{prefix}: {len(fitting)} trainings begin like this: {alike}")
    newest = f"the newest is {every[-1].fingerprint} ({every[-1].title})" if every else "it is empty"
    raise ValueError(
        f"{prefix}: {store.root} has no training whose fingerprint begins like this; {newest}. kdrun store list shows "
        f"all"
    )


def listed(every: Sequence[Entry], store: Store) -> Table:
    """Return the table of trainings; on 80 columns only text has to be wrapped, no number."""
    rows = []
    for e in every:
        epochs = str(e.result.get("epochs") or "–")
        rows.append([e.fingerprint, e.title, f"{e.state} {e.when[:10]}", per_cent(e.test), epochs,
                     duration(e.seconds), console.size(e.bytes)])  # fmt: skip
    return Table(["fingerprint", "training", "state", "test %", "epochs", "time", "size"], rows, summary(every, store))


def described(entry: Entry) -> list[Table]:
    """Return two tables of a training: its facts, with its time and size, and its spec."""
    result = entry.result
    selected: Any = result.get("selected") or {}
    facts = [["state", ": ".join(filter(None, (entry.state, entry.problem or result.get("reason"))))]]
    if result:
        accuracies = [f"{k} {per_cent(selected[k]['accuracy'])}%" for k in ("train", "val", "test") if selected.get(k)]
        epochs = result.get("epochs") or 0
        took = f"{console.seconds(entry.seconds)} for {epochs} epoch{'s'[: epochs != 1]}"
        facts += [
            ["accuracy", f"{', '.join(accuracies)}, epoch {selected['epoch']}" if selected else "–"],
            ["training", f"{took}, {result.get('images_per_second')} images/s on {result.get('device')}"],
            ["network", f"{console.count(result.get('parameters') or 0)} parameters"],
            ["formula", str(result.get("formula") or "–")],
            ["command", str(result.get("command") or "–")],
            ["versions", ", ".join(f"{k} {v}" for k, v in (result.get("versions") or {}).items())],
        ]
    facts += [["bank", _bank(path)] for path in banks.stored(entry.folder)]
    facts += [["when", entry.when], ["on disk", f"{console.size(entry.bytes)} in {entry.folder}"]]
    try:
        spec = [[k, str(v)] for k, v in leaves(json.loads((entry.folder / "spec.json").read_text()))]
    except (OSError, ValueError) as error:
        spec = [["–", f"spec.json cannot be read: {error}"]]
    return [Table([entry.fingerprint, entry.title], facts), Table(["spec", ""], spec)]


def _bank(path: Path) -> str:
    """Describe a bank's content in words by its header alone; kdrun store verify reads the whole file."""
    if (content := banks.peek(path)) is None:
        return f"{path.name}, which cannot be read"
    rows = content["views"] * content["images"]
    known = f"{content['known']:,} of {rows:,}" if content["known"] < rows else f"all {rows:,}"
    rounded = "".join(f", {key} {value}" for key, value in content["of"]["bank"].items())
    size, views = console.size(path.lstat().st_size), f"{content['views']} view{'s'[: content['views'] != 1]}"
    by = " and ".join(content["environments"])
    return f"{size}: the logits for {views} of {content['images']:,} images, {known} known{rounded}; by {by}"


def summary(every: Sequence[Entry], store: Store) -> str:
    """Return in words the number of trainings by state, their size on disk and their time of training."""
    states: dict[str, int] = {}
    for e in every:
        states[e.state] = states.get(e.state, 0) + 1
    counts = ", ".join(f"{number} {state}" for state, number in states.items())
    spent = console.seconds(sum(e.seconds for e in every))
    size = console.size(sum(e.bytes for e in every))
    return f"{len(every)} training{'s'[: len(every) != 1]} in {store.root}: {counts}; {size}, {spent} of training"


def duration(value: float) -> str:
    """Return a duration in one unit, which takes little room: 12.3 s, 4.1 min, 2.2 h."""
    if not value:
        return "–"
    return f"{value:.1f} s" if value < 60 else f"{value / 60:.1f} min" if value < 3600 else f"{value / 3600:.1f} h"
