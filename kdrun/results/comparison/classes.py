"""Accuracy per class: teacher, baseline and student side by side, and the classes that the teacher's help changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation.accuracy import correct
from kdrun.results import statistics
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.lanes import Lane
from kdrun.results.evidence import Evidence, judge
from kdrun.results.statistics import Paired
from kdrun.results.tables import Exact, Sentences, Table, difference_cells, per_cent

AGAINST = ["Δ", "95%", "repaired", "spoiled"]  # columns that need a baseline
MOST_NAMED = 5  # classes in one sentence


def class_table(comparison: Comparison) -> Table | None:
    """Return the table of classes of every student beside its teacher and baseline; None without a finished student."""
    lanes = [lane for lane in comparison.lanes if lane.student is not None and lane.student.finished]
    if not lanes:
        return None
    names = class_names(comparison)
    differences = [_differences(comparison, lane, len(names)) for lane in lanes]
    beside = list(zip(lanes, differences, strict=True))
    rows = [row for lane, by_class in beside for row in _rows(comparison, lane, names, by_class)]
    notes = [
        "accuracy on the test images of each class, mean ± sample standard deviation over seeds",
        "Δ: student − baseline, paired by seed, with its 95% t-interval, which is not corrected for the number of "
        "classes; repaired: images per seed that only the student gets right, spoiled: only the baseline",
    ]
    sentences = [_sentence(lane, names, by_class) for lane, by_class in beside]
    columns = ["student", "class", "images", "teacher %", "baseline %", "student %", *AGAINST, "student takes it for"]
    table = Table(columns, rows, Sentences(sentences), notes)
    return table.without_empty("student", "teacher %", "baseline %", *AGAINST)


def _rows(
    comparison: Comparison, lane: Lane, names: Sequence[str], differences: Sequence[Paired | None]
) -> Iterator[list[str]]:
    assert lane.student is not None
    three = [comparison.towards if comparison.same_test else None, lane.baseline, lane.student]
    accuracies = [None if row is None or not row.finished else comparison.studied[row].per_class() for row in three]
    confused = comparison.studied[lane.student].confusion()
    moved = _moved(lane, len(names))
    for c, (name, d) in enumerate(zip(names, differences, strict=True)):
        shares = [None if part is None else statistics.summary([float(v) for v in part[:, c]]) for part in accuracies]
        changed = ("–" if d is None else Exact(f"{part[c]:.1f}", {"": part[c]}) for part in moved)
        against = [*difference_cells(d), *changed]
        images = str(round(confused[c].sum()))
        yield [lane.about or "–", name, images, *map(per_cent, shares), *against, _taken_for(confused[c], c, names)]


def class_names(comparison: Comparison) -> Sequence[str]:
    """Return the names of the classes, in the order of their numbers."""
    first = next(m for row in comparison.rows for m in row.finished if "classes" in m.result)
    return [str(name) for name in first.result["classes"]]


def _differences(comparison: Comparison, lane: Lane, classes: int) -> list[Paired | None]:
    """Return for every class the student's accuracy minus the baseline's, paired by seed."""
    if lane.student is None or lane.baseline is None or lane.student_is_baseline or not lane.pairs:
        return [None] * classes
    own, base = (
        {part.seed: accuracies for part, accuracies in zip(studied.parts, studied.per_class(), strict=True)}
        for studied in (comparison.studied[lane.student], comparison.studied[lane.baseline])
    )
    by_class = [[{seed: float(part[c]) for seed, part in each.items()} for each in (own, base)] for c in range(classes)]
    return [statistics.pair_by_seed(*two) for two in by_class]


def _moved(lane: Lane, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return, for every class, how many images per seed only the student, and only the baseline, gets right."""
    repaired, spoiled = np.zeros(classes), np.zeros(classes)
    for baseline, student in lane.pairs:
        labels = student.labels()
        before, after = correct(baseline.logits(), labels), correct(student.logits(), labels)
        repaired += np.bincount(labels[after & ~before], minlength=classes)
        spoiled += np.bincount(labels[before & ~after], minlength=classes)
    return repaired / max(1, len(lane.pairs)), spoiled / max(1, len(lane.pairs))


def _sentence(lane: Lane, names: Sequence[str], differences: Sequence[Paired | None]) -> str:
    """Return in words which classes the teacher's help repairs and spoils, as far as the seeds can show it."""
    about = f"{lane.about}: " if lane.about else ""
    if all(d is None for d in differences):
        return f"{about}Accuracy per class."
    if all(d is None or d.n == 1 for d in differences):
        return f"{about}Accuracy per class; one seed cannot separate an effect from chance."
    named = [
        (d, name, judged.evidence)
        for name, d in zip(names, differences, strict=True)
        if d is not None and (judged := judge(d, lane.lost)).evidence > Evidence.NOT_SHOWN
    ]
    named.sort(key=lambda one: -abs(one[0].mean))
    sure = all(evidence is Evidence.SHOWN for _, _, evidence in named)
    effects: list[str] = []
    for better, word in ((True, "repair"), (False, "spoil")):
        listed = [f"{name} ({100 * d.mean:+.2f})" for d, name, _ in named if (d.mean > 0) == better]
        more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
        verb = f"{word}s" if sure else f"seems to {word}"
        effects.append(f"{verb} {', '.join(listed[:MOST_NAMED]) or 'no class'}{more}")
    by = "by intervals that are not corrected for the number of classes" + ("" if sure else ", indicative")
    return f"{about}Distillation {effects[0]} and {effects[1]}, {by}."


def _taken_for(counts: NDArray[np.float64], own: int, names: Sequence[str]) -> str:
    """Return the class that a class's images are most often mistaken for, with their number per network."""
    others = counts.astype(float).copy()
    others[own] = 0
    most = int(others.argmax())
    return f"{names[most]} ({others[most]:.1f})" if others[most] > 0 else "–"
