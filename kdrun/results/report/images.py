"""The page's pictures of test images: softened targets, what distillation changes, and classes that were left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation.missing import shifted
from kdrun.records import RunJson
from kdrun.results.comparison import examples
from kdrun.results.comparison.classes import class_names
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.examples import Answers, Kept
from kdrun.results.plots.gallery import Card, plot_cards
from kdrun.results.plots.softened import Example, plot_softened
from kdrun.results.report.page import Block, Picture

SOFTENED, CHANGED, MISSING = "What a temperature does", "Images that distillation changes", "missing"


def image_blocks(comparison: Comparison, folder: Path, target: Path) -> dict[str, list[Block]]:
    """Draw the test images that the run kept in its `folder`, and return text and picture by section.

    Nothing if the run kept none, or if it has no finished student and teacher tested on the same images.
    """
    kept, answers = examples.read(folder), Answers.of(comparison)
    if kept is None or answers is None:
        return {}
    names = class_names(comparison)
    return {
        SOFTENED: _softened(kept, answers, names, comparison.record, target),
        CHANGED: _changed(kept, answers, names, target),
        MISSING: _missing(kept, answers, names, comparison.omitted.named, target),
    }


def _softened(kept: Kept, answers: Answers, names: Sequence[str], record: RunJson, target: Path) -> list[Block]:
    """Draw teacher's and student's probabilities at several temperatures, and say how the images were chosen."""
    reasons = {"ordinary": "of median entropy", "named": "named by examples="}
    entropy, divergence = answers.entropy(), answers.divergence()
    shown = [
        Example(i, _image(kept, i), int(answers.labels[i]), answers.teacher[i], answers.student[i],
                {"unsure": f"entropy {entropy[i]:.2f} nats", "disagree": f"KL {divergence[i]:.2f} nats"}.get(
                    kind, reasons.get(kind, "")))
        for kind, which in kept.chosen.items() if kind in (*examples.SOFTENED, examples.BEFORE)
        for i in which
    ]  # fmt: skip
    own = own_temperatures(record)
    drawn = plot_softened(shown, names, target, own)
    if drawn is None:
        return []
    how = {
        "ordinary": "one of median entropy of the teacher's answer",
        "unsure": "those of highest entropy, on which the teacher is least sure",
        "disagree": "those of highest KL(teacher ‖ student), on which the two disagree most",
    }
    said = "; ".join(text for kind, text in how.items() if kind in kept.chosen)
    chosen = f"Test images, chosen at T = 1: {said}; of different classes where there are enough. " if said else ""
    about = f"{chosen}The answers are those of seed {answers.seed}; the axis of probabilities is logarithmic."
    return [about, Picture(drawn, "test images with the probabilities of teacher and student at several temperatures")]


def _changed(kept: Kept, answers: Answers, names: Sequence[str], target: Path) -> list[Block]:
    """Draw the images that only one of student and baseline gets right, and say how many there are."""
    every, count = answers.moved(), len(answers.labels)
    heads = {"repaired": "only the student is right", "spoiled": "only the baseline is right"}
    cards = {kind: _cards(kept, kind, answers) for kind in heads}
    lines = {
        f"{heads[kind]}: {len(every[kind]):,} of {count:,} test images"
        + (f", {len(own)} shown" if len(own) < len(every[kind]) else ""): own
        for kind, own in cards.items()
        if own
    }
    drawn = plot_cards(lines, names, target, "changed")
    if drawn is None:
        return []
    repaired, spoiled = (len(every[kind]) for kind in heads)
    about = (
        f"With seed {answers.seed}, only the student gets {repaired:,} of {count:,} test images right, and only the "
        f"baseline {spoiled:,}; with another seed they are other images. The first {examples.MOVED} of each kind are "
        "shown, by the difference between their probabilities of the true class (bold)."
    )
    return [about, Picture(drawn, "test images that only the student or only the baseline gets right")]


def _missing(kept: Kept, answers: Answers, names: Sequence[str], called: str, target: Path) -> list[Block]:
    """Draw images of the classes that baseline and student never saw; `called` names these classes."""
    cards = _cards(kept, "missing", answers)
    title = f"never shown to baseline and student: {called}"
    drawn = plot_cards({title: cards}, names, target, "missing")
    if drawn is None:
        return []
    about = (
        f"Test images that were left out, with the answers of seed {answers.seed}, evenly spread from the image whose "
        "class the student finds most probable to the one whose class it finds least probable."
    )
    if answers.offset is not None:
        about += f" The student's offset, chosen on validation, is {answers.offset:+.2f}."
    return [about, Picture(drawn, "test images of classes that were left out, with the networks' probabilities")]


def _cards(kept: Kept, kind: str, answers: Answers) -> list[Card]:
    """Return the kept images of one kind with the probabilities of all networks."""
    from scipy.special import softmax

    networks = {"teacher": answers.teacher, "baseline": answers.baseline, "student": answers.student}
    logits: dict[str, NDArray[Any]] = {name: z for name, z in networks.items() if z is not None}
    cards = []
    for i in kept.chosen.get(kind, ()):
        own = {name: z[i : i + 1] for name, z in logits.items()}
        if kind == "missing" and answers.offset is not None:
            own["student with offset"] = shifted(own["student"], answers.omitted, answers.offset)
        probabilities = {name: softmax(z.astype(np.float64), axis=1)[0] for name, z in own.items()}
        cards.append(Card(i, _image(kept, i), int(answers.labels[i]), probabilities))
    return cards


def _image(kept: Kept, index: int) -> NDArray[np.uint8]:
    pixels = kept.pixels[index]
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def own_temperatures(record: RunJson) -> list[float]:
    """Return the temperatures at which a run's loss softens the answers of teacher or student."""
    terms = (record.get("config") or {}).get("loss") or {}
    known = [
        term.get(key) or term.get("T")
        for term in terms.values()
        if isinstance(term, Mapping)
        for key in ("teacher_T", "student_T")
    ]
    return sorted({float(T) for T in known if isinstance(T, int | float) and T > 0})
