"""What refers to the trainings of a store: runs, sweeps, and networks that learned from others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from kdrun import process, sealed
from kdrun.config import MEASURING
from kdrun.records import ComparisonJson, ProcessJson, RunJson, SweepJson
from kdrun.results.inventory import Entry

RECORDS: dict[str, Any] = {"run.json": RunJson, "sweep.json": SweepJson, "comparison.json": ComparisonJson}
# a mention in any key counts, and also one in typed words
FINGERPRINT = re.compile(r"(?<![0-9a-f])[0-9a-f]{12}(?![0-9a-f])")


@dataclass
class References:
    """Which runs and sweeps mention which fingerprints, and what cannot be known."""

    runs: dict[str, set[str]] = field(default_factory=dict)  # fingerprint -> names of runs and sweeps
    unreadable: list[str] = field(default_factory=list)  # records, and why
    # commands of older versions that are not done: as what they need is not recorded, all of their trainings are kept
    open_commands: dict[str, str] = field(default_factory=dict)  # command -> name of the run
    planning: list[str] = field(default_factory=list)  # runs at work that have not recorded yet what they need

    def kept(self, entries: Iterable[Entry]) -> set[str]:
        """Return the fingerprints of all trainings that are referred to, with the teachers behind them."""
        every = {e.fingerprint: e for e in entries if e.state != "set aside"}
        keep = {f for f, e in every.items() if f in self.runs or e.result.get("command") in self.open_commands}
        keep |= {f for f, e in every.items() if not e.finished and (self.open_commands or e.state == "unreadable")}
        todo = list(keep)
        while todo:
            folder = every[todo.pop()].folder
            taught = (set(FINGERPRINT.findall(self._spec(folder))) & every.keys()) - keep
            keep |= taught
            todo += taught
        return keep

    def _spec(self, folder: Path) -> str:
        path = folder / "spec.json"
        try:
            return path.read_text()
        except FileNotFoundError:  # killed before it was written
            return ""
        except (OSError, ValueError) as error:
            self.unreadable.append(f"{path}: {error}")
            return ""

    def read(self, path: Path, name: str) -> None:
        """Read one record of the run or sweep of that name."""
        try:
            record: Any = sealed.read(path, RECORDS[path.name])
            text = path.read_text()
        except (OSError, ValueError) as error:
            self.unreadable.append(f"{path}: {getattr(error, 'strerror', None) or error}")
            return
        for fingerprint in FINGERPRINT.findall(text):
            self.runs.setdefault(fingerprint, set()).add(name)
        if path.name == "comparison.json" or record.get("status") == "done" or record.get("verb") in MEASURING:
            return
        if "wanted" not in record:
            self.open_commands.setdefault(str(record.get("command")), name)
        elif record.get("status") == "running" and not record["wanted"] and not _ended(record.get("process")):
            self.planning.append(name)


def references(outputs: Path) -> References:
    """Read all records below an outputs folder, links to folders included."""
    refs = References()

    def unreadable(error: OSError) -> None:
        refs.unreadable.append(f"{error.filename}: {error.strerror}")

    visited: set[str] = set()
    for place, folders, files in os.walk(outputs, onerror=unreadable, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:
            folders.clear()
            continue
        below = [Path(place, name) for name in folders]
        folders[:] = [p.name for p in sorted(below, key=lambda p: (p.is_symlink(), p)) if p != outputs / "store"]
        visited.add(real)
        for name in files:
            if name in RECORDS:
                refs.read(Path(place, name), str(Path(place).relative_to(outputs)))
    return refs


def _ended(at_work: Any) -> bool:
    """Return whether the process that wrote a record is gone."""
    return isinstance(at_work, dict) and process.gone(cast(ProcessJson, at_work))
