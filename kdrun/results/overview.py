"""The list of `kdrun runs`: a line for each run or sweep, and the filters that select them."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from kdrun.checks import as_typed, nearest
from kdrun.command import hints
from kdrun.config import MEASURING
from kdrun.results import tested
from kdrun.results.runs import Run, all_runs, number, reasons, short
from kdrun.results.statistics import Summary
from kdrun.results.sweep.sweep import Sweep
from kdrun.results.tables import Table, per_cent
from kdrun.spec import leaves

ROLES = ("teacher", "baseline", "student")
# settings that change no result, or that nobody looks for in a list
ASIDE = ("outputs", "plan", "force", "workers", "data_timeout", "checkpoint_every", "reported", "device", "tracker",
         "report", "columns", "examples", "run", "verbose", "quiet")  # fmt: skip
NARROWEST = 12  # characters of the last column
MEANINGS = {
    "gain?": "indicative",
    "loss?": "indicative",
    "unclear": "no significant difference",
    "untested": "one seed, or nothing to compare",
}


@dataclass(frozen=True)
class Line:
    """What the list shows of a run, of one student of several, or of a sweep."""

    name: str
    created: str
    verb: str
    settings: Mapping[str, str]  # key -> as typed, and the data set
    numbers: Sequence[Summary | None]  # test accuracy by ROLES
    verdict: str
    runs: Sequence[Run]  # a sweep's cells
    ahead: Sequence[str] = field(default_factory=list)  # words that are always shown

    @property
    def words(self) -> list[str]:
        """The settings as words."""
        return [f"{key}={value}" for key, value in self.settings.items()]


def list_runs(outputs: Path, filters: Sequence[str] = (), newest: int | None = None, *, wide: bool = False) -> Table:
    """List the runs under an outputs folder that match all filters, or only the `newest` of these; the newest is last.

    Raise ValueError, naming what exists, if a filter is not understood or no run matches.
    """
    columns = ["run", "when", *ROLES, "verdict", "what"]
    groups = _groups(outputs)
    if not groups:
        return Table(columns, [], f"there are no runs under {outputs} yet; start with kdrun distill")
    kept = [group for group in groups if group.fits(filters)][:newest]
    if not kept:
        raise ValueError(_nothing(filters, [run for group in groups for run in group.runs]))
    lines = [line for group in reversed(kept) for line in _lines(group)]
    common = _common(lines)
    years = len({line.created[:4] for line in lines if line.created})
    rows = []
    for line in lines:
        cells = [per_cent(n if wide or n is None else n.mean) for n in line.numbers]
        rows.append([line.name, _when(line.created, years > 1), *cells, line.verdict, ""])
    room = None if wide else _room([columns, *rows])
    shared = Counter(word for line in lines for word in line.words)
    for row, line in zip(rows, lines, strict=True):
        own = sorted((word for word in line.words if word not in common), key=lambda word: shared[word])
        row[-1] = _fitted([*line.ahead, *own], room) or line.verb
    shown = f"{len(kept)} of {len(groups)}" if len(kept) < len(groups) else str(len(kept))
    title = f"{shown} run{'s'[: len(groups) != 1]} under {outputs}"
    if common:
        title += f"{'; all' if len(lines) > 1 else ''}: {' '.join(common)}"
    words = [f"{word}: {meaning}" for word, meaning in MEANINGS.items() if any(line.verdict == word for line in lines)]
    notes = [f"test accuracy in %; verdict: student against baseline{''.join(f'; {word}' for word in words)}"]
    if any("★" in line.ahead for line in lines):
        notes.append("★: the cell of a sweep that was chosen on validation, whose numbers these are")
    if any(re.search(r" \+\d+$", row[-1]) for row in rows):
        notes.append("+2: two more settings; --wide shows them")
    notes += reasons((short(run.name), run) for line in lines for run in line.runs)
    return Table(columns, rows, title, list(dict.fromkeys(notes)))


def _common(lines: Sequence[Line]) -> list[str]:
    """Return the settings that all lines of trainings share; empty if only one of several lines is a training's."""
    first, *others = [line.words for line in lines if line.verb not in MEASURING and line.settings] or [[]]
    return [word for word in first if all(word in other for other in others)] if others or len(lines) == 1 else []


@dataclass(frozen=True)
class _Group:
    """One run, or a sweep's cells with the sweep; `sweep` is None for a single run."""

    runs: Sequence[Run]
    sweep: Sweep | None = None

    def fits(self, filters: Sequence[str]) -> bool:
        """Return whether the run, or one of the cells, has all settings of the filters."""
        return any(all(_fits(run, word) for word in filters) for run in self.runs)


def _groups(outputs: Path) -> list[_Group]:
    """Return all runs and sweeps, newest first."""
    groups: list[_Group] = []
    for parent, runs in groupby(all_runs(outputs), key=lambda run: run.folder.parent):
        together = list(runs)
        try:
            groups.append(_Group(together, Sweep(parent)))
        except ValueError:  # no sweep, or one whose cells are listed one by one
            groups += [_Group([run]) for run in together]
    return groups


def _lines(group: _Group) -> Iterator[Line]:
    if group.sweep is not None:
        yield _sweep(group.sweep, group.runs)
        return
    for run in group.runs[0].by_lane():
        accuracies = [number(row, "test_accuracy") for row in (run.teacher(), run.row("baseline"), run.row("student"))]
        verb = _verb(run)
        ahead = [*([] if verb == "distill" else [verb.replace("_", " ")]), *([run.lane] if run.lane else [])]
        if verb in MEASURING:
            ahead.append(short(Path(str(run.config.get("run", "?"))).name))
        yield Line(short(run.name), _created(run), verb, _settings(run), accuracies, _verdict(run), group.runs, ahead)


def _sweep(sweep: Sweep, cells: Sequence[Run]) -> Line:
    """Return the line of a sweep: its values, and the numbers of the chosen cell."""
    values = {key: list(dict.fromkeys(cell.shown[key] for cell in sweep.cells)) for key in sweep.keys}
    verb = str(sweep.record.get("verb", "?"))
    ahead = [] if verb == "distill" else [verb.replace("_", " ")]
    ahead += [f"{key}={','.join(tried)}" for key, tried in values.items()]
    accuracies: list[Summary | None] = [None] * len(ROLES)
    verdict = "done"
    if (best := sweep.best) is not None:
        accuracies = [sweep.summary(best, "test", role) for role in ROLES]
        ahead += ["★", best.name]
        verdict = _verdict(best.run)
    if len(sweep.done) < len(sweep.cells) and verb not in MEASURING:
        verdict = f"{len(sweep.done)} of {len(sweep.cells)}"
    settings = {key: value for key, value in _settings(cells[0]).items() if key not in values}
    return Line(short(sweep.folder.name), _created(cells[0]), verb, settings, accuracies, verdict, cells, ahead)


def _verdict(run: Run) -> str:
    """Return the outcome of a run in a word."""
    if run.status != "done":
        return run.status
    if not run.row("student"):
        return "done"
    return tested.judged(run).brief


def _verb(run: Run) -> str:
    return str(run.record.get("verb") or "?")


def _created(run: Run) -> str:
    return str(run.record.get("created") or "")


def _settings(run: Run) -> dict[str, str]:
    """Return the typed settings that tell runs apart, the data set first."""
    typed = dict(word.lstrip("+").split("=", 1) for word in map(str, run.record.get("overrides") or ()) if "=" in word)
    data = {} if run.choice("dataset") == "–" or _verb(run) in MEASURING else {"dataset": run.choice("dataset")}
    return data | {k: v for k, v in typed.items() if k not in ASIDE and not k.startswith("hydra") and k not in data}


def _when(created: str, year: bool) -> str:
    """Return a moment in local time; – if it is unknown."""
    with suppress(ValueError):
        return datetime.fromisoformat(created).astimezone().strftime(f"{'%Y-' * year}%m-%d %H:%M")
    return "–"


def _room(rows: Sequence[Sequence[str]]) -> int:
    """Return how many characters the terminal leaves for the last column."""
    others = sum(max(len(row[i]) for row in rows) + 2 for i in range(len(rows[0]) - 1))
    return max(NARROWEST, shutil.get_terminal_size((100, 24)).columns - others)


def _fitted(words: Sequence[str], room: int | None) -> str:
    """Return the words that fit on a line, and the number of those left out: `T=4 alpha=0.5 +2`."""
    for kept in range(len(words), 0, -1):
        text = " ".join(words[:kept]) + (f" +{len(words) - kept}" if kept < len(words) else "")
        if room is None or len(text) <= room:
            return text
    return f"{words[0][: room - 1]}…" if words and room else ""


def _fits(run: Run, word: str) -> bool:
    key, _, value = word.partition("=")
    return any(_same(one, value) for one in _values(run, key))


def _values(run: Run, key: str) -> list[Any]:
    """Return a run's values of a key: its verb or status, the choice of a config group, or a configured setting."""
    own = {"verb": _verb(run).replace("_", " "), "status": run.status}
    if key in own:
        return [own[key]]
    choice = (run.record.get("choices") or {}).get(key)
    if choice is not None:
        return [*choice, *([choice] if len(choice) != 1 else [])] if isinstance(choice, list) else [choice]
    return [value for name, value in leaves(run.config) if name == key]


def _same(value: Any, typed: str) -> bool:
    if as_typed(value) == typed or str(value) == typed:
        return True
    with suppress(ValueError, TypeError):
        return not isinstance(value, bool) and float(value) == float(typed)
    return False


def _nothing(filters: Sequence[str], runs: Sequence[Run]) -> str:
    """Return why no run matches: a key that no run has, a value that none has, or no run with all of them."""
    keys = ["verb", "status"]
    for run in runs:
        keys += [*(run.record.get("choices") or {}), *(name for name, _ in leaves(run.config))]
    known = list(dict.fromkeys(keys))
    for word in filters:
        key, _, value = word.partition("=")
        if key not in known:
            meant = hints.for_key(key, value)
            return f"runs: {word}: no run here has a setting {key}.{f' {meant}' if meant else nearest(key, known)}"
        if not any(_fits(run, word) for run in runs):
            values = dict.fromkeys(as_typed(value) for run in runs for value in _values(run, key))
            return f"runs: {word}: no run here has it; {key} is {', '.join(list(values)[:12])}"
    return f"runs: {' '.join(filters)}: no run here has all of these"
