"""The comparison: teacher, baseline and student side by side, from the result files of their artifacts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from kdrun.console import count, seconds, size
from kdrun.evaluation.accuracy import correct
from kdrun.evaluation.fidelity import agreement, divergence
from kdrun.results import statistics
from kdrun.results.statistics import Paired, SingleRun, Summary
from kdrun.results.tables import Table, per_cent
from kdrun.store import write_atomic

ORDER = {"teacher": 0, "baseline": 1, "student": 2}


@dataclass(frozen=True)
class Member:
    """One artifact as its files describe it; logits are read when they are asked for."""

    folder: Path
    result: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Member:
        """Read an artifact's result.json. Raises ValueError where it is missing or no JSON."""
        try:
            return cls(folder, json.loads((folder / "result.json").read_text()))
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder}: no readable result.json ({error})") from None

    @property
    def finished(self) -> bool:
        """Whether it has numbers."""
        return bool(self.result["status"] == "done")

    def logits(self, part: str = "test") -> tuple[Any, Any]:
        """Give (logits (N, C), labels (N,)) of the selected epoch on "val" or "test"."""
        stored = load_file(self.folder / "logits.safetensors")
        return stored[part], stored[f"{part}_labels"]

    def point(self, part: str, key: str = "accuracy", epoch: str = "selected") -> float:
        """Give one number of the selected or the last epoch; NaN where it was not measured."""
        measured = (self.result[epoch] or {}).get(part)
        return math.nan if measured is None else float(measured[key])


@dataclass(frozen=True)
class Row:
    """All seeds of one role and network."""

    role: str
    model: str
    members: Sequence[Member]

    @property
    def finished(self) -> list[Member]:
        """Those that ended with weights."""
        return [m for m in self.members if m.finished]

    def summary(self, part: str, key: str = "accuracy", epoch: str = "selected") -> Summary | None:
        """Summarise one number over the seeds."""
        return statistics.summary([m.point(part, key, epoch) for m in self.finished])

    def lost(self) -> str:
        """Say how many did not finish, if any: `5 of 6, 1 diverged`."""
        missing = [m.result["status"] for m in self.members if not m.finished]
        if not missing:
            return ""
        return f"{len(self.finished)} of {len(self.members)}, {len(missing)} {missing[0]}"


class Comparison:
    """Rows, paired statistics and the verdict of one run."""

    def __init__(self, folders: Sequence[Path], record: Mapping[str, Any]) -> None:
        self.record = record
        members = [Member.read(folder) for folder in folders]
        if not members:
            raise ValueError("there is nothing to compare: no training was finished")
        roles = [str(used["role"]) for used in record.get("artifacts", [])] or [str(m.result["role"]) for m in members]
        groups: dict[tuple[str, str], list[Member]] = {}
        for role, member in zip(roles, members, strict=True):
            groups.setdefault((role, str(member.result["model"])), []).append(member)
        self.rows = sorted(
            (Row(role, model, found) for (role, model), found in groups.items()), key=lambda r: ORDER.get(r.role, 3)
        )
        self.teacher = self._row("teacher")
        self.baseline = self._row("baseline")
        self.student = self._row("student")
        self.paired = self._paired()
        self.single = self._single()
        self.gap = self._gap()

    def _row(self, role: str) -> Row | None:
        return next((row for row in self.rows if row.role == role), None)

    def _pairs(self) -> list[tuple[Member, Member]]:
        if self.baseline is None or self.student is None:
            return []
        alone = {m.result["seed"]: m for m in self.baseline.finished}
        return [(alone[s.result["seed"]], s) for s in self.student.finished if s.result["seed"] in alone]

    def _paired(self) -> Paired | None:
        return statistics.paired([s.point("test") - b.point("test") for b, s in self._pairs()])

    def _single(self) -> SingleRun | None:
        pairs = self._pairs()
        if len(pairs) != 1:
            return None
        (b_logits, labels), (s_logits, _) = pairs[0][0].logits(), pairs[0][1].logits()
        return statistics.single_run(correct(b_logits, labels), correct(s_logits, labels))

    def _gap(self) -> float | None:
        pairs = self._pairs()
        teacher = self.teacher.summary("test") if self.teacher else None
        if not pairs or teacher is None:
            return None
        student = sum(s.point("test") for _, s in pairs) / len(pairs)
        baseline = sum(b.point("test") for b, _ in pairs) / len(pairs)
        return statistics.gap_closed(student, baseline, teacher.mean)

    @property
    def verdict(self) -> str:
        """Say in words what this comparison shows."""
        if self.student is None:
            row = self.rows[0]
            test = row.summary("test")
            what = f"{row.role} {row.model}"
            return f"{what}: {per_cent(test)}% of the test images right." if test else f"{what}: {row.lost()}."
        if self.baseline is None:
            return "Not shown: without labels there is no baseline to compare with."
        lost = sum(not m.finished for row in (self.baseline, self.student) for m in row.members)
        return statistics.verdict(
            self.paired, gap=self.gap, asked=len(self.student.members), diverged=lost, single=self.single
        )

    def fidelity(self, row: Row) -> tuple[Summary | None, Summary | None]:
        """Give agreement with the teacher and KL to it on test data, over a row's seeds."""
        if self.teacher is None or not self.teacher.finished or row.role == "teacher":
            return None, None
        taught, _ = self.teacher.finished[0].logits()
        seen = [m.logits()[0] for m in row.finished]
        agreed = statistics.summary([agreement(z, taught) for z in seen])
        return agreed, statistics.summary([divergence(z, taught) for z in seen])

    def table(self) -> Table:
        """Give the table that people read."""
        columns = ["role", "model", "params", "size", "train %", "val %", "test %", "Δ base", "gap %", "agree %",
                   "epoch", "time"]  # fmt: skip
        return Table(columns, [self._cells(row) for row in self.rows], self.verdict, self._notes())

    def _cells(self, row: Row) -> list[str]:
        if not row.finished:
            reason = row.members[0].result["status"]
            return [row.role, row.model, "–", "–", "–", "–", reason, "–", "–", "–", "–", "–"]
        first = row.finished[0].result
        epochs = [int(m.result["selected"]["epoch"]) for m in row.finished]
        shown = f"{min(epochs)}–{max(epochs)}" if min(epochs) < max(epochs) else str(epochs[0])
        difference = gap = "–"
        if row is self.student and self.paired is not None:
            difference = per_cent(self.paired.mean, signed=True)
            gap = "–" if self.gap is None else f"{100 * self.gap:.0f}"
        elif row is self.teacher and self.baseline is not None:
            ours, theirs = row.summary("test"), self.baseline.summary("test")
            if ours is not None and theirs is not None:
                difference = per_cent(ours.mean - theirs.mean, signed=True)
        return [
            row.role,
            row.model,
            count(first["parameters"]),
            size(first["bytes"]),
            *(per_cent(row.summary(part)) for part in ("train", "val", "test")),
            difference,
            gap,
            per_cent(self.fidelity(row)[0]),
            shown,
            seconds(sum(float(m.result["seconds"]) for m in row.finished) / len(row.finished)),
        ]

    def _notes(self) -> list[str]:
        first = next((row.finished[0] for row in self.rows if row.finished), self.rows[0].members[0])
        notes = []
        if (student := self.student or self.baseline) is not None:
            seeds = ", ".join(str(m.result["seed"]) for m in student.members)
            spread = "mean ± sample standard deviation" if len(student.finished) > 1 else "one run each"
            notes.append(f"{spread} over n = {len(student.finished)} seeds ({seeds}); time: mean per training")
        if self.student is not None and self.student.finished:
            notes.append(f"student: L = {self.student.finished[0].result['formula']}")
        if self.teacher is not None and len(self.teacher.members) == 1 and self.student is not None:
            notes.append("one teacher for all seeds: its own training noise is not in these intervals")
        if self.paired is not None and self.paired.n > 1:
            p = self.paired
            notes.append(
                f"paired by seed (same initial weights, same batches): Δ {per_cent(p.mean, signed=True)} points, 95% t-interval "
                f"[{per_cent(p.low, signed=True)}, {per_cent(p.high, signed=True)}], exact sign-flip p = {p.p:.4g} "
                f"(the smallest possible with n = {p.n}: {statistics.smallest_p(p.n):.3g})"
            )
        if self.single is not None:
            s = self.single
            notes.append(
                f"test-set noise for these two models, not training noise: only the student right {s.only_second_right}, "
                f"only the baseline right {s.only_first_right}, McNemar p = {s.mcnemar_p:.4g}, paired bootstrap 95% "
                f"[{per_cent(s.low, signed=True)}, {per_cent(s.high, signed=True)}]"
            )
        if self.teacher is not None and self.baseline is not None and self.paired is not None and self.gap is None:
            notes.append("gap closed is undefined: the teacher is not better than the baseline")
        if first.finished:
            notes.append(self._epoch_note(first))
        for row in self.rows:
            if lost := row.lost():
                reason = next(m.result["reason"] for m in row.members if not m.finished)
                notes.append(f"{row.role}: {lost}: {reason}")
        notes += self._transfer_notes()
        return notes

    def _epoch_note(self, member: Member) -> str:
        _, labels = member.logits()
        images = f"{len(labels):,} test images of {member.result['dataset']}"
        if member.result["protocol"] == "paper":
            best = [m.result["best_test"] for row in self.rows for m in row.finished if m.result["best_test"]]
            shown = ", ".join(f"{row.role} {per_cent(statistics.summary([m.result['best_test']['test']['accuracy'] for m in row.finished]))}" for row in self.rows if row.finished) if best else ""
            return f"{images}; last epoch, as the papers report it; best epoch chosen on test (optimistic): {shown}"
        if member.result["selected"]["val"] is None:
            return f"{images}; last epoch (nothing was held out to choose one on)"
        return f"{images}; epoch chosen on validation, test measured there; the last epoch's numbers are in comparison.json"

    def _transfer_notes(self) -> list[str]:
        transfer = (self.record.get("config") or {}).get("transfer") or {}
        said = []
        if transfer.get("fraction", 1) < 1:
            said.append(f"{100 * transfer['fraction']:g}% of the training images")
        if transfer.get("omit_classes"):
            said.append(f"without the classes {', '.join(map(str, transfer['omit_classes']))}")
        if transfer.get("labels") is False:
            said.append("without labels (so there is no baseline, and no training accuracy)")
        if transfer.get("extra"):
            said.append("with unlabelled images added")
        return [f"transfer set: {', '.join(said)}"] if said and self.student is not None else []

    def data(self) -> dict[str, Any]:
        """Give everything as JSON: every point of the selected and of the last epoch, and how it came about."""
        rows = []
        for row in self.rows:
            agreed, kl = self.fidelity(row)
            rows.append(
                {
                    "role": row.role,
                    "model": row.model,
                    "dataset": row.members[0].result["dataset"],
                    "n": len(row.finished),
                    "asked": len(row.members),
                    **{f"{part}_accuracy": _plain(row.summary(part)) for part in ("train", "val", "test")},
                    "val_nll": _plain(row.summary("val", "nll")),
                    "test_nll": _plain(row.summary("test", "nll")),
                    "last_test_accuracy": _plain(row.summary("test", epoch="last")),
                    "agreement": _plain(agreed),
                    "kl_to_teacher": _plain(kl),
                    "points": [_point(m) for m in row.members],
                }
            )
        return {
            "kind": "comparison",
            "verdict": self.verdict,
            "formula": self.record.get("formula"),
            "rows": rows,
            "paired": None if self.paired is None else vars(self.paired),
            "single_run": None if self.single is None else vars(self.single),
            "gap_closed": self.gap,
            "table": self.table().to_json(),
            **{key: self.record.get(key) for key in ("verb", "command", "created", "overrides", "choices")},
        }


def _plain(value: Summary | None) -> dict[str, Any] | None:
    return None if value is None else vars(value)


def _point(member: Member) -> dict[str, Any]:
    keys = ("fingerprint", "seed", "status", "reason", "parameters", "bytes", "epochs", "selected", "last", "best_test",
            "seconds", "formula", "T", "alpha", "precision", "device", "threads", "versions", "command", "protocol")  # fmt: skip
    return {key: member.result.get(key) for key in keys} | {"folder": member.folder.name}


def write_comparison(folder: Path, artifacts: Sequence[Path], record: Mapping[str, Any]) -> str:
    """Write comparison.{md,csv,json,tex} into a run's folder and give the text for the terminal.

    `record` is the run's run.json. Raises ValueError where an artifact's files cannot be read.
    """
    used = Comparison(artifacts, record)
    table = used.table()
    command = f"\nMade by `{record.get('command', '')}`.\n"
    write_atomic(folder / "comparison.md", (table.to_markdown() + command).encode())
    write_atomic(folder / "comparison.csv", table.to_csv().encode())
    write_atomic(folder / "comparison.tex", table.to_latex().encode())
    text = json.dumps(_finite(used.data()), indent=2, allow_nan=False) + "\n"
    write_atomic(folder / "comparison.json", text.encode())
    return table.to_text()


def _finite(value: Any) -> Any:
    """Replace what JSON lacks: NaN and infinities become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


__all__ = ["Comparison", "Member", "Row", "write_comparison"]
