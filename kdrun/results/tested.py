"""The tests of runs, identified by the trainings of student and baseline, and the correction for their number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from kdrun.results import evidence, statistics
from kdrun.results.evidence import Judgement
from kdrun.results.runs import Run

Prints = tuple[str, ...]  # the fingerprints of a row's trainings, in order


def pair(run: Run) -> tuple[Prints, Prints] | None:
    """Return the trainings of baseline and student, which identify a test; None if there is nothing to test."""
    baseline, student = _prints(run, "baseline"), _prints(run, "student")
    return (baseline, student) if baseline and student and baseline != student else None


def nothing_distilled(run: Run) -> bool:
    """Return whether the student is the baseline, as with alpha=0: the teacher's weight is 0."""
    student = _prints(run, "student")
    return bool(student) and student == _prints(run, "baseline")


def p_value(run: Run) -> float | None:
    """Return the p-value of a run's student against its baseline; None if there is nothing to test."""
    return None if pair(run) is None or run.paired is None else run.paired.p


def tests(runs: Sequence[Run]) -> int:
    """Return the number of different pairs of student and baseline that the runs tested."""
    return len({pair(run) for run in runs if p_value(run) is not None})


def judged(run: Run, p: float | None = None) -> Judgement:
    """Judge a run's student against its baseline, by `p` if given: the p-value corrected for several tests."""
    paired = run.paired if pair(run) is not None else None
    rows = [row for role in ("baseline", "generation", "student") for row in run.rows(role)]
    return evidence.judge(paired, any(row["n"] < row["asked"] for row in rows), p)


def verdict(run: Run, p: float | None, number: int) -> str:
    """Return a run's verdict; if it is one of a `number` of tests, judged by the corrected p-value `p`."""
    uncorrected = str((run.comparison or {}).get("verdict") or "")
    return uncorrected if p is None or number < 2 else evidence.corrected(uncorrected, judged(run, p), p, number)


def verdicts(runs: Sequence[Run]) -> dict[Path, list[str]]:
    """Return the verdicts of runs by folder, one for each student, corrected for the number of all tests."""
    lanes = [lane for run in runs for lane in run.by_lane()]
    by_folder = defaultdict[Path, list[str]](list)
    for lane, p in zip(lanes, corrected(lanes), strict=True):
        about = f"{lane.lane}: " if lane.lane else ""
        by_folder[lane.folder].append(about + verdict(lane, p, tests(lanes)))
    return by_folder


def gains(run: Run) -> list[tuple[float, float]]:
    """Return student − baseline on validation and on test data for each seed that has both."""
    base, own = (_accuracies(run, role) for role in ("baseline", "student"))
    return [(own[seed][0] - base[seed][0], own[seed][1] - base[seed][1]) for seed in own if seed in base]


def corrected(runs: Sequence[Run]) -> list[float | None]:
    """Return the p-values of runs corrected for their number; runs of the same pair are one test."""
    tests = {pair(run): p for run in runs if (p := p_value(run)) is not None}
    adjusted = dict(zip(tests, statistics.holm(list(tests.values())), strict=True))
    return [adjusted.get(pair(run)) for run in runs]


def _accuracies(run: Run, role: str) -> dict[int, tuple[float, float]]:
    """Return by seed the accuracies on validation and test data of a role's first row, if there are both."""
    row = run.row(role)
    epochs = {point["seed"]: point.get("selected") for point in (row["points"] if row else ())}
    return {
        seed: (float(val["accuracy"]), float(test["accuracy"]))
        for seed, epoch in epochs.items()
        if epoch and (val := epoch.get("val")) and (test := epoch.get("test"))
    }


def _prints(run: Run, role: str) -> Prints:
    return tuple(str(point.get("fingerprint")) for row in run.rows(role) for point in row["points"])
