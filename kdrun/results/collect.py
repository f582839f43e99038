"""Finding and collecting runs: what lies under outputs/, how two differ, many in one table. Reads result files only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrun.config import nearest
from kdrun.results.statistics import Summary
from kdrun.results.tables import Table, per_cent
from kdrun.spec import Spec, differences
from kdrun.store import write_atomic


@dataclass(frozen=True)
class Found:
    """A run's folder with what its files say; `problem` where they cannot be read."""

    folder: Path
    record: Mapping[str, Any]
    comparison: Mapping[str, Any] | None
    problem: str | None = None

    @property
    def status(self) -> str:
        """How it ended, or that it has not."""
        return self.problem or str(self.record.get("status"))

    def row(self, role: str) -> Mapping[str, Any] | None:
        """Give the comparison's row of a role."""
        rows = self.comparison["rows"] if self.comparison else []
        return next((row for row in rows if row["role"] == role), None)

    def choice(self, group: str) -> str:
        """Say what was chosen of a group."""
        value = (self.record.get("choices") or {}).get(group)
        return "+".join(map(str, value)) if isinstance(value, list) else str(value) if value else "–"


def read_run(folder: Path) -> Found:
    """Read a run folder; what is missing or damaged is said, not raised."""
    try:
        record = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        return Found(folder, {}, None, f"no readable run.json ({error})")
    try:
        comparison = json.loads((folder / "comparison.json").read_text())
    except OSError:
        comparison = None
    except ValueError as error:
        return Found(folder, record, None, f"comparison.json is damaged ({error})")
    return Found(folder, record, comparison)


def all_runs(outputs: Path) -> list[Found]:
    """Give every run under an outputs folder, cells of sweeps too, newest first."""
    files = [*outputs.glob("runs/*/*/run.json"), *outputs.glob("sweeps/*/*/*/run.json")]
    found = [read_run(file.parent) for file in files]
    return sorted(found, key=lambda f: (str(f.record.get("created", "")), f.folder.as_posix()), reverse=True)


def find_run(name: str, outputs: Path) -> Path:
    """Give the run folder that `name` means: a folder, a run's name or the start of one, or latest.

    Raises ValueError where there is none, or where several begin so, naming what exists.
    """
    direct = Path(name).expanduser()
    for folder in (direct, outputs / name):
        if (folder / "run.json").is_file():
            return folder.resolve()
        if (folder / "sweep.json").is_file():
            raise ValueError(f"{name}: is a sweep; name one of its cells, such as {folder.resolve() / '0'}")
    runs = {found.folder.name: found.folder for found in all_runs(outputs) if not found.folder.name.isdigit()}
    matching = [n for n in runs if n.startswith(name)] if name else []
    if len(matching) == 1:
        return runs[matching[0]]
    if matching:
        raise ValueError(f"{name}: {len(matching)} runs begin so: {', '.join(matching[:5])}")
    there = f"{nearest(name, runs)} The newest is {next(iter(runs))}; kdrun runs lists all" if runs else " There are none yet"
    raise ValueError(f"{name}: there is no such run under {outputs}.{there}")


def find_artifact(name: str, role: str, outputs: Path, *, seed: int | None = None) -> str:
    """Give the fingerprint of the artifact that `name` means: a fingerprint in the store, or a run's one of `role`.

    Raises ValueError where there is none.
    """
    if (folders := list((outputs / "store").glob(f"*-{name}"))) and (folders[0] / "result.json").is_file():
        return name
    if (folder := Path(name).expanduser()).is_dir() and (folder / "spec.json").is_file():
        return folder.resolve().name.rpartition("-")[2]
    run = find_run(name, outputs)
    used = json.loads((run / "run.json").read_text())["artifacts"]
    fitting = [a for a in used if a["role"] == role and seed in (None, a["seed"])]
    if not fitting:
        there = ", ".join(f"{a['role']} seed {a['seed']}" for a in used) or "no networks"
        wanted = role if seed is None else f"{role} of seed {seed}"
        raise ValueError(f"{name}: that run has no {wanted}; it has {there}")
    return str(fitting[0]["fingerprint"])


def list_runs(outputs: Path) -> Table:
    """Say what lies under outputs/, newest first."""
    found = all_runs(outputs)
    rows = []
    for run in found:
        student = run.row("student") or run.row("baseline") or run.row("teacher")
        name = run.folder.name if not run.folder.name.isdigit() else f"{run.folder.parent.name}/{run.folder.name}"
        rows.append(
            [
                name,
                str(run.record.get("verb", "?")).replace("_", " "),
                run.status,
                run.choice("dataset"),
                per_cent(_summary(student, "test_accuracy")) if student else "–",
                " ".join(run.record.get("overrides", [])) or "–",
            ]
        )
    title = f"{len(found)} runs under {outputs}" if found else f"nothing lies under {outputs} yet: kdrun distill makes the first run"
    return Table(["run", "verb", "status", "dataset", "test %", "typed"], rows, title)


def compare_runs(a: str, b: str, outputs: Path) -> Table:
    """Say how two runs differ: settings, specs and numbers. Raises ValueError for a run that does not exist."""
    left, right = (read_run(find_run(name, outputs)) for name in (a, b))
    settings = [dict(_leaves(run.record.get("config", {}))) for run in (left, right)]
    settings = [{k: v for k, v in s.items() if k not in ("outputs", "plan", "force", "workers")} for s in settings]
    rows = [
        [key, _said(settings[0], key), _said(settings[1], key)]
        for key in dict.fromkeys([*settings[0], *settings[1]])
        if settings[0].get(key, _MISSING) != settings[1].get(key, _MISSING)
    ]
    for role in ("teacher", "baseline", "student"):
        specs = [_spec(run, role, outputs) for run in (left, right)]
        if specs[0] and specs[1]:
            keys = differences(specs[0], specs[1])
            shown = "the same training" if not keys else f"differs in {', '.join(keys)}"
            rows.append([f"{role}: {shown}", specs[0].fingerprint, specs[1].fingerprint])
        ours, theirs = left.row(role), right.row(role)
        if ours or theirs:
            rows.append([f"{role} test %", *(per_cent(_summary(r, "test_accuracy")) for r in (ours, theirs))])
    rows.append(["status", left.status, right.status])
    return Table(["what differs", left.folder.name, right.folder.name], rows)


def write_report(paths: Sequence[str], outputs: Path, target: Path) -> str:
    """Collect runs and sweeps into one table, write report.{md,csv,json,tex} to `target`, give the terminal's text.

    `paths` are run folders, sweep folders, folders of them, or names of runs; none means all of `outputs`.
    Raises ValueError for a path that is none of these.
    """
    found = list(_collected(paths, outputs))
    rows, unfinished = [], 0
    for run in found:
        if run.record.get("verb") == "evaluate":
            continue
        name = run.folder.name if not run.folder.name.isdigit() else f"{run.folder.parent.name}/{run.folder.name}"
        if run.comparison is None:
            unfinished += 1
            rows.append([name, run.choice("dataset"), *["–"] * 8, f"{run.status}: {run.record.get('reason') or run.problem or 'no numbers yet'}"])
            continue
        teacher, baseline, student = (run.row(role) for role in ("teacher", "baseline", "student"))
        paired = run.comparison["paired"]
        interval = (
            f"[{per_cent(paired['low'], signed=True)}, {per_cent(paired['high'], signed=True)}]"
            if paired and paired["low"] is not None
            else "–"
        )
        main = student or baseline or teacher
        rows.append(
            [
                name,
                run.choice("dataset"),
                str(main["model"]) if main else "–",
                str(run.comparison.get("formula") or "–"),
                per_cent(_summary(teacher, "test_accuracy")),
                per_cent(_summary(baseline, "test_accuracy")),
                per_cent(_summary(student, "test_accuracy")),
                per_cent(paired["mean"], signed=True) if paired else "–",
                interval,
                str(main["n"]) if main else "–",
                " ".join(run.record.get("overrides", [])) or run.status,
            ]
        )
    columns = ["run", "dataset", "model", "loss", "teacher %", "baseline %", "student %", "Δ", "95%", "n", "typed"]
    notes = ["accuracies on test data at the selected epoch, mean ± sample standard deviation over n seeds; Δ: student − baseline, paired"]
    title = f"{len(rows)} runs" + (f"; partial: {unfinished} of them have no numbers" if unfinished else "")
    table = Table(columns, rows, title, notes)
    target.mkdir(parents=True, exist_ok=True)
    write_atomic(target / "report.md", table.to_markdown().encode())
    write_atomic(target / "report.csv", table.to_csv().encode())
    write_atomic(target / "report.tex", table.to_latex().encode())
    whole = {**table.to_json(), "partial": bool(unfinished), "runs": [r.comparison for r in found if r.comparison]}
    write_atomic(target / "report.json", (json.dumps(whole, indent=2) + "\n").encode())
    return table.to_text()


def _collected(paths: Sequence[str], outputs: Path) -> Iterator[Found]:
    if not paths:
        runs = all_runs(outputs)
        if not runs:
            raise ValueError(f"nothing lies under {outputs.absolute()} yet: kdrun distill makes the first run")
        yield from runs
        return
    seen: set[Path] = set()
    for name in paths:
        folder = Path(name).expanduser()
        if folder.is_dir() and not (folder / "run.json").is_file():
            inside = sorted(file.parent for file in folder.resolve().rglob("run.json"))
            waiting = sorted(p for p in folder.iterdir() if p.name.isdigit() and not (p / "run.json").is_file())
            if not inside and not waiting:
                raise ValueError(f"{name}: holds no runs; kdrun runs lists what there is")
            chosen: Iterable[Path] = [*inside, *waiting]
        else:
            chosen = [find_run(name, outputs)]
        for run in chosen:
            if run.resolve() not in seen:
                seen.add(run.resolve())
                yield read_run(run)


def _summary(row: Mapping[str, Any] | None, key: str) -> Summary | None:
    return Summary(**row[key]) if row and row.get(key) else None


def _spec(run: Found, role: str, outputs: Path) -> Spec | None:
    used = next((a for a in run.record.get("artifacts", []) if a["role"] == role), None)
    if used is None:
        return None
    try:
        return Spec.from_json((outputs / "store" / used["folder"] / "spec.json").read_text())
    except (OSError, ValueError, KeyError):
        return None


_MISSING = object()


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def _said(settings: Mapping[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else "–"
