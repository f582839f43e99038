"""How a comparison is told: a row per role, and below it what one must know to trust the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kdrun import console
from kdrun.results import statistics
from kdrun.results.members import Member, Row
from kdrun.results.statistics import p_text
from kdrun.results.tables import Exact, Table, interval, per_cent

if TYPE_CHECKING:
    from kdrun.results.comparison import Comparison


def comparison_table(comparison: Comparison) -> Table:
    """Give the table that people read: the verdict first, the rows, the notes; the files name the sources too."""
    columns = ["role", "model", "params", "size", "train %", "val %", "test %", "Δ base", "gap %", "agree %", "n",
               "epoch", "time"]  # fmt: skip
    rows = [_cells(comparison, row) for row in comparison.rows]
    return Table(columns, rows, comparison.verdict(), _notes(comparison), _sources(comparison))


def _cells(comparison: Comparison, row: Row) -> list[str]:
    result = row.members[0].result
    test = row.summary("test")
    first = [row.role, row.model]
    if result["parameters"]:
        first.append(Exact(console.count(result["parameters"]), {"": result["parameters"]}))
        first.append(Exact(console.size(result["bytes"]), {"bytes": result["bytes"]}) if result["bytes"] else "–")
    else:
        first += ["–", "–"]
    if test is None:
        return [*first, "–", "–", row.lost(), *["–"] * 3, row.count(), "–", "–"]
    difference = gap = "–"
    if row is comparison.student and comparison.paired is not None:
        difference = per_cent(comparison.paired.mean, signed=True)
        if comparison.gap is not None:
            gap = Exact(f"{100 * comparison.gap:.0f}", {"": 100 * comparison.gap})
    elif row is comparison.teacher and comparison.baseline is not None and comparison.same_test:
        alone = comparison.baseline.summary("test")
        difference = "–" if alone is None else per_cent(test.mean - alone.mean, signed=True)
    epochs = [int(m.result["selected"]["epoch"]) for m in row.finished]
    spread = {"": min(epochs)} if min(epochs) == max(epochs) else {"from": min(epochs), "to": max(epochs)}
    seconds = float(np.mean([m.result["seconds"] for m in row.finished]))
    return [
        *first,
        *(per_cent(row.summary(part)) for part in ("train", "val", "test")),
        difference,
        gap,
        per_cent(comparison.fidelity[row.role][0]),
        row.count(),
        Exact("–".join(map(str, spread.values())), spread) if any(epochs) else "–",
        Exact(console.seconds(seconds), {"seconds": seconds}) if seconds else "–",
    ]


def _notes(comparison: Comparison) -> list[str]:
    told = [
        *_paired_notes(comparison),
        *_sampling_notes(comparison),
        *_epoch_notes(comparison),
        *_lost_notes(comparison),
        *_transfer_notes(comparison),
    ]
    if comparison.student is not None and comparison.student.finished:
        told.append(f"student: L = {comparison.student.finished[0].result['formula']}")
    if len(_environments(comparison)) > 1:
        told.append("not all were trained in the same surroundings: comparison.md names versions and devices")
    return told


def _paired_notes(comparison: Comparison) -> list[str]:
    told: list[str] = []
    if comparison.student_is_baseline:  # nothing was drawn twice, so there is nothing to test
        return told
    if (p := comparison.paired) is not None and p.p is not None:
        extra = ((comparison.record.get("config") or {}).get("transfer") or {}).get("extra")
        same = "same initial weights; the student sees more images" if extra else "same initial weights, same batches"
        spread = "all differences equal" if p.low is None else f"95% t-interval {interval(p.low, p.high)}"
        told.append(
            f"Δ base, paired by seed ({same}): {per_cent(p.mean, signed=True)}, {spread}; "
            f"exact sign-flip {p_text(p.p)} (the smallest possible with n = {p.n}: {statistics.smallest_p(p.n):.2g})"
        )
    if (s := comparison.single) is not None:
        told.append(
            "test-set noise for these two models, not training noise: only the student is right on "
            f"{s.only_second_right} images, only the baseline on {s.only_first_right}, McNemar {p_text(s.mcnemar_p)}; "
            f"paired bootstrap 95% {interval(s.low, s.high)}"
        )
    if comparison.paired is not None and comparison.teacher is not None and comparison.gap is None:
        told.append(
            "gap % is undefined: the teacher is not better than the baseline"
            if comparison.same_test
            else "gap % and agree % are undefined: the teacher was measured on other test images"
        )
    return told


def _sampling_notes(comparison: Comparison) -> list[str]:
    trained = [row for row in comparison.rows if row is not comparison.teacher] or comparison.rows
    row = max(reversed(trained), key=lambda row: len(row.finished))
    if not row.finished:
        return []
    seeds = ", ".join(str(m.seed) for m in row.finished)
    if len(row.finished) == 1:
        return [f"seed {seeds}"]
    told = [f"mean ± sample standard deviation over seeds {seeds}; time: mean of one training"]
    teacher = comparison.teacher
    if comparison.student is not None and teacher is not None and len(teacher.members) == 1:
        told.append("one teacher for all seeds: its own training noise is not in these intervals")
    return told


def _epoch_notes(comparison: Comparison) -> list[str]:
    """Say at which epoch each row was measured: the teacher may have been chosen otherwise than the others."""
    finished = [row for row in comparison.rows if row.finished]
    if not finished:
        return []
    member = finished[-1].finished[0]
    chosen: dict[str, list[Row]] = {}
    for row in finished:
        chosen.setdefault(_chosen(row.finished[0]), []).append(row)
    hows = [
        how if len(chosen) == 1 else f"{' and '.join(row.role for row in rows)}: {how}" for how, rows in chosen.items()
    ]
    told = [f"{len(member.labels()):,} test images of {member.result['dataset']}; {'; '.join(hows)}"]
    if others := chosen.get(ON_VALIDATION):
        last = "; ".join(f"{row.role} {per_cent(row.summary('test', epoch='last'))}" for row in others)
        told[0] += f"; at the last epoch: {last}"
    if best := [f"{row.role} {per_cent(found)}" for row in finished if (found := _best_test(row))]:
        told.append(f"best epoch chosen on test, optimistic: {'; '.join(best)}")
    return told


ON_VALIDATION = "epoch chosen on validation, test measured there"


def _chosen(member: Member) -> str:
    """Say how the epoch was chosen at which a network was measured."""
    selected = member.result["selected"]
    if member.result["protocol"] == "paper":
        return "last epoch, as the papers report it"
    if not selected["epoch"]:
        return "weights from a file, measured as they are"
    return "last epoch (nothing was held out to choose one on)" if selected["val"] is None else ON_VALIDATION


def _best_test(row: Row) -> statistics.Summary | None:
    best = [m.result["best_test"] for m in row.finished]
    return statistics.summary([b["test"]["accuracy"] for b in best if b])


def _lost_notes(comparison: Comparison) -> list[str]:
    told = []
    for row in comparison.rows:
        if lost := row.lost():
            reasons: dict[str, list[str]] = {}
            for m in row.members:
                if not m.finished:
                    label = f"{m.result['role']} {row.model} seed {m.seed}: "  # which this line says already
                    reason = str(m.result["reason"] or "no reason is known").removeprefix(label)
                    reasons.setdefault(reason, []).append(str(m.seed))
            said = "; ".join(f"seed{'s'[: len(s) != 1]} {', '.join(s)}: {reason}" for reason, s in reasons.items())
            told.append(f"{row.role}: {len(row.finished)} of {len(row.members)}, {lost}: {said}")
    return told


def _transfer_notes(comparison: Comparison) -> list[str]:
    transfer = (comparison.record.get("config") or {}).get("transfer") or {}
    told = []
    if transfer.get("fraction", 1) < 1:
        told.append(f"{100 * transfer['fraction']:g}% of the training images")
    if transfer.get("omit_classes"):
        told.append(f"without the classes {', '.join(map(str, transfer['omit_classes']))}")
    if transfer.get("labels") is False:
        told.append("without labels (so there is no baseline, and no training accuracy)")
    if transfer.get("extra"):
        told.append("with unlabelled images added for the student")
    return [f"transfer set: {', '.join(told)}"] if told and comparison.student is not None else []


def _environments(comparison: Comparison) -> dict[str, list[Member]]:
    found: dict[str, list[Member]] = {}
    for row in comparison.rows:
        for member in row.members:
            found.setdefault(member.environment(), []).append(member)
    return found


def _sources(comparison: Comparison) -> list[str]:
    """Say by what command, from which trainings and on what machine the numbers came."""
    told = [f"made by: {comparison.record.get('command') or 'unknown'}"]
    for row in comparison.rows:
        trained = ", ".join(f"{m.result['fingerprint']} (seed {m.seed})" for m in row.members)
        told.append(f"{row.role}: {trained}")
    surroundings = _environments(comparison)
    for environment, members in surroundings.items():
        which = "" if len(surroundings) == 1 else f" ({', '.join(str(m.result['fingerprint']) for m in members)})"
        told.append(f"trained with {environment}{which}")
    return told
