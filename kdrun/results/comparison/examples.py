"""Some test images of a run, kept beside its tables so that its page can show the networks' predictions for them.

They are chosen by the logits of one seed when the run ends: the page may be drawn later, and then reads only files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation.accuracy import correct
from kdrun.results.comparison.comparison import Comparison

FILE = "examples.safetensors"
LARGEST = 96  # pixels of the longer side; larger images are shrunk, so that a run keeps less than 1 MB
UNSURE, DISAGREE, MOVED, MISSING = 2, 2, 6, 6  # at most so many images of each kind; one is ordinary
KINDS = ("named", "ordinary", "unsure", "disagree", "missing", "repaired", "spoiled")
SOFTENED = KINDS[:4]  # the kinds whose probabilities are shown at several temperatures
BEFORE = "before"  # the only kind in a file of kdrun 0.1, which does not record why an image was chosen


@dataclass(frozen=True)
class Answers:
    """The logits (N, C) of one seed's networks on test data, with the labels (N,); the seed is that of the first pair.

    `baseline` is None if no baseline finished. `omitted` are the classes left out of the transfer set, and `offset`
    corrects the student's bias against them (None if validation has no image of them).
    """

    seed: int
    labels: NDArray[np.integer]
    teacher: NDArray[np.floating]
    student: NDArray[np.floating]
    baseline: NDArray[np.floating] | None
    omitted: Sequence[int] = ()
    offset: float | None = None

    @classmethod
    def of(cls, comparison: Comparison) -> Answers | None:
        """Return the logits for a run's first student; None unless it finished, with a teacher on the same images."""
        lane = next(iter(comparison.lanes), None)
        if lane is None or lane.student is None or not lane.student.finished or not comparison.same_test:
            return None
        assert comparison.towards is not None
        baseline, student = lane.pairs[0] if lane.pairs else (None, lane.student.finished[0])
        alone = None if baseline is None else baseline.logits()
        teacher = comparison.towards.finished[0].logits()
        measured = comparison.omitted.measured[lane.student]
        offset = next((point.offset for point in measured if point.seed == student.seed), None)
        return cls(student.seed, student.labels(), teacher, student.logits(), alone, comparison.omitted.classes, offset)

    def moved(self) -> dict[str, NDArray[np.intp]]:
        """Return all test images that only the student ("repaired") or only the baseline ("spoiled") gets right.

        Images with the largest difference in the true class's probability come first; ties are broken by index.
        """
        if self.baseline is None:
            return {}
        after, before = correct(self.student, self.labels), correct(self.baseline, self.labels)
        own, alone = (_sure(z, self.labels) for z in (self.student, self.baseline))
        gain = np.exp(own) - np.exp(alone)
        return {
            kind: which[np.argsort(sign * gain[which], kind="stable")]
            for kind, sign, which in (
                ("repaired", -1, np.flatnonzero(after & ~before)),
                ("spoiled", 1, np.flatnonzero(before & ~after)),
            )
        }

    def choose(self, named: Sequence[int] = ()) -> dict[str, list[int]]:
        """Return the indices of the test images to keep, by kind; the same logits give the same choice.

        ordinary: of median teacher entropy. unsure: of highest teacher entropy. disagree: of highest
        KL(teacher ‖ student). If there are `named` images, they replace these three kinds. missing: images of the
        omitted classes, which the first three kinds leave out, evenly spread from the image whose class the student
        finds most probable to the one whose class it finds least probable. All at T=1; ties are broken by index.
        """
        chosen: dict[str, list[int]] = {"named": list(named)}
        if not named:
            entropy = self.entropy()
            known = np.flatnonzero(~np.isin(self.labels, self.omitted) & np.isfinite(entropy))
            middle = known[np.argsort(entropy[known], kind="stable")][len(known) // 2 :][:1]
            chosen["ordinary"] = middle.tolist()
            chosen["unsure"] = _highest(entropy, self.labels, np.setdiff1d(known, middle), UNSURE)
            left = np.setdiff1d(known, [*chosen["ordinary"], *chosen["unsure"]])
            chosen["disagree"] = _highest(self.divergence(), self.labels, left, DISAGREE)
        chosen["missing"] = self._missing()
        chosen |= {kind: which[:MOVED].tolist() for kind, which in self.moved().items()}
        return {kind: which for kind, which in chosen.items() if which}

    def entropy(self) -> NDArray[np.float64]:
        """Return the entropy of the teacher's probabilities for each test image in nats, at T=1."""
        from scipy.special import entr, softmax

        nats: NDArray[np.float64] = entr(softmax(self.teacher.astype(np.float64), axis=1)).sum(axis=1)
        return nats

    def divergence(self) -> NDArray[np.float64]:
        """Return KL(teacher ‖ student) of each test image in nats, at T=1."""
        from scipy.special import log_softmax

        log_t, log_s = (log_softmax(z.astype(np.float64), axis=1) for z in (self.teacher, self.student))
        nats: NDArray[np.float64] = (np.exp(log_t) * (log_t - log_s)).sum(axis=1)
        return nats

    def _missing(self) -> list[int]:
        chosen: list[int] = []
        sure = _sure(self.student, self.labels)
        for c in self.omitted[:MISSING]:
            own = np.flatnonzero(self.labels == c)
            own = own[np.argsort(-sure[own], kind="stable")]
            places = np.linspace(0, max(0, len(own) - 1), min(len(own), max(1, MISSING // len(self.omitted))))
            chosen += own[places.round().astype(int)].tolist()
        return chosen


def _sure(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the log-probability of each image's true class, at T=1."""
    from scipy.special import log_softmax

    known: NDArray[np.float64] = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return known


def _highest(
    score: NDArray[np.float64], labels: NDArray[np.integer], among: NDArray[np.integer], count: int
) -> list[int]:
    """Return the indices of the `count` highest scores, of different classes as far as there are enough classes."""
    ordered = among[np.argsort(-score[among], kind="stable")]
    seen: Counter[int] = Counter()
    turns = []
    for label in labels[ordered].tolist():
        turns.append(seen[label])
        seen[label] += 1
    return [int(i) for i in ordered[np.argsort(turns, kind="stable")][:count]]


@dataclass(frozen=True)
class Kept:
    """The images that a run kept: the indices by kind, and pixels (H, W, C), 0 to 255, by index."""

    chosen: Mapping[str, Sequence[int]]
    pixels: Mapping[int, NDArray[np.uint8]]


def every(chosen: Mapping[str, Sequence[int]]) -> list[int]:
    """Return the indices of all kinds, each once."""
    return list(dict.fromkeys(i for which in chosen.values() for i in which))


def write(folder: Path, chosen: Mapping[str, Sequence[int]], pixels: NDArray[np.uint8]) -> None:
    """Write the pixels (n, H, W, C), 0 to 255, of `every` chosen test image into a run's folder."""
    from safetensors.numpy import save

    from kdrun.files import write_atomic

    kept: dict[str, NDArray[Any]] = {"index": np.array(every(chosen), dtype=np.int64), "pixels": _smaller(pixels)}
    kept |= {f"chosen.{kind}": np.array(which, dtype=np.int64) for kind, which in chosen.items()}
    write_atomic(folder / FILE, save(kept))


def read(folder: Path) -> Kept | None:
    """Return the images that a run kept; None if it kept none.

    Raise ValueError if the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / FILE
    if not path.exists():
        return None
    try:
        kept: dict[str, Any] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from None
    indices = kept["index"].tolist()
    chosen = {kind: kept[key].tolist() for kind in KINDS if (key := f"chosen.{kind}") in kept}
    return Kept(chosen or {BEFORE: indices}, dict(zip(indices, kept["pixels"], strict=True)))


def _smaller(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink images (n, H, W, C) whose longer side is above LARGEST; each pixel is the mean of those it stands for."""
    from PIL import Image

    _, height, width, _ = pixels.shape
    if max(height, width) <= LARGEST or not len(pixels):
        return np.ascontiguousarray(pixels)
    shrink = LARGEST / max(height, width)
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    planes = [
        [np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, Image.Resampling.BOX)) for plane in image]
        for image in pixels.transpose(0, 3, 1, 2)
    ]
    return np.ascontiguousarray(np.array(planes, dtype=np.uint8).transpose(0, 2, 3, 1))
