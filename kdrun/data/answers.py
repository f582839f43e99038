"""The answers of a model that kdrun does not run, matched with the images and classes of a data set.

They are that model's outputs for the training images as stored. It may be an API, an ensemble, or a network that is
too large for this machine. answer_files.py reads the four file formats.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdrun.checks import typed_path
from kdrun.data import answer_files
from kdrun.data.answer_files import AnswerFile
from kdrun.data.listing import listed
from kdrun.data.sets import ELSEWHERE, Dataset, FileSet, ImageSet

log = logging.getLogger(__name__)
SMALLEST = 1e-12
"""Smaller probabilities are replaced with this one, since log 0 is infinite."""
ROUNDING = 0.01
"""How far the sum of an image's probabilities may be from 1: those of many classes are often rounded."""


@dataclass(frozen=True, eq=False)
class Answers:
    """A model's logits for some of a data set's stored training images."""

    typed: str
    """The file's name."""
    kind: str
    """What the file holds: logits, or probabilities p, whose logits are log max(p, 1e-12)."""
    logits: Tensor
    """(N, C) float32"""
    origins: Tensor
    """(N,) int64, rising: the images' positions among the stored training images"""
    digest: str
    """Sha256 of classes, origins and logits: the same for every file format and order of rows."""
    about: Mapping[str, Any]
    """What kdrun wrote about the network; empty for a file made by hand."""

    def content(self) -> bytes:
        """Return the answers as the bytes of a .safetensors file, for `stored`."""
        tensors = {"logits": self.logits, "origins": self.origins}
        return safetensors.torch.save(tensors, {"kind": self.kind, "digest": self.digest})

    @classmethod
    def stored(cls, file: Path) -> "Answers":
        """Return the answers in a file with that content, which the caller knows to be undamaged."""
        with safetensors.safe_open(file, framework="pt") as opened:
            about = opened.metadata()
            logits, origins = opened.get_tensor("logits"), opened.get_tensor("origins")
        return cls(str(file), about["kind"], logits, origins, about["digest"], {})

    def places(self, images: ImageSet | FileSet) -> Tensor:
        """Return the row of the answer to each image in a part of the training images, (M,) int64; -1 if none."""
        assert images.origins is not None, "they are training images"
        at = torch.searchsorted(self.origins, images.origins).clamp(max=len(self.origins) - 1)
        return torch.where(self.origins[at] == images.origins, at, -1)

    def rows(self, dataset: Dataset, images: ImageSet | FileSet) -> Tensor:
        """Return the rows (M,) int64 of the answers to a part of the training images, in the order of the part.

        Raise ValueError, with the first of them, if some images have no answer.
        """
        rows, origins = self.places(images), images.origins
        assert origins is not None
        if added := int((origins == ELSEWHERE).sum()):
            raise ValueError(
                f"transfer.extra: teacher.file={self.typed} has no answers for these {added:,} images, only for "
                "training images; leave transfer.extra out, or choose a teacher that is a network"
            )
        if len(missing := origins[rows < 0]):
            named = listed([_called(dataset, i) for i in missing.tolist()])
            raise ValueError(
                f"teacher.file={self.typed}: has no answer for {len(missing):,} of {len(images):,} images that the "
                f"student learns from: {named}; add them (if the file was cut short, write it again), or leave out "
                "their classes (transfer.omit_classes)"
            )
        return rows


def read(typed: str, dataset: Dataset) -> Answers:
    """Return the answers in a file, in the order of the stored training images.

    Raise ValueError if classes differ in names or order, if images are unknown or answered twice, if a number is not
    finite, or if probabilities are invalid. The last file is kept, so that the cells of a sweep read it once.
    """
    place = typed_path(typed, "teacher.file=")
    state = place.stat() if place.is_file() else None
    return _read(typed, str(place.absolute()), (state.st_mtime_ns, state.st_size) if state else None, dataset)


@functools.lru_cache(maxsize=1)
def _read(typed: str, place: str, state: tuple[int, int] | None, dataset: Dataset) -> Answers:
    where, file = f"teacher.file={typed}", answer_files.read(typed)
    _refuse_classes(file.classes, dataset, where)
    _refuse_images(file, dataset, where)
    origins = _origins(file, dataset, where)
    logits = torch.from_numpy(_logits(file, where))
    order = origins.argsort()
    origins, logits = origins[order], logits[order]
    content = hashlib.sha256(json.dumps(file.classes, ensure_ascii=False).encode())
    content.update(origins.numpy().data)
    content.update(logits.numpy().data)
    return Answers(typed, file.kind, logits, origins, content.hexdigest(), file.about)


def _refuse_classes(theirs: Sequence[str], dataset: Dataset, where: str) -> None:
    ours, name = dataset.classes, f"dataset={dataset.name}"
    if tuple(theirs) == ours:
        return
    unknown, missing = [one for one in theirs if one not in ours], [one for one in ours if one not in theirs]
    if unknown or missing:
        parts = [f"only in the file: {listed(unknown)}"] if unknown else []
        parts += [f"only in the data set: {listed(missing)}"] if missing else []
        raise ValueError(f"{where}: its classes are not those of {name}; {'; '.join(parts)}")
    if len(theirs) > len(ours):
        twice = next(one for one in theirs if theirs.count(one) > 1)
        raise ValueError(f"{where}: the class {twice} is listed twice")
    first = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
    raise ValueError(
        f"{where}: its classes are in another order than those of {name}: class {first} is {theirs[first]!r} there and "
        f"{ours[first]!r} here; put its columns, and the names of its classes, into the order {listed(ours)}"
    )


def _refuse_images(file: AnswerFile, dataset: Dataset, where: str) -> None:
    """Raise ValueError if kdrun wrote the file for other images that cannot be matched by name; warn if they can."""
    about, name = file.about, f"dataset={dataset.name}"
    if not about or about.get("data") == dataset.digest:
        return
    if file.names is None or not dataset.names:
        raise ValueError(
            f"{where}: was written for other images than those of {name} (dataset={about.get('dataset')}; classes, "
            "pixels or their number differ); write it from a network that was trained on these"
        )
    log.warning(
        "%s: was written for these images at another size or otherwise changed; they are matched by name", where
    )


def _origins(file: AnswerFile, dataset: Dataset, where: str) -> Tensor:
    """Return the position of each row's image among the stored training images, (N,) int64."""
    name = f"dataset={dataset.name}"
    if file.names is not None and dataset.names:
        indices = _by_name(file.names, file.indices, dataset, where)
    elif file.indices is not None:
        if file.names is not None:
            log.info("%s: the images of %s have no file names: they are matched by index", where, name)
        indices = file.indices
        unknown = [f"index {i}" for i in indices[(indices < 0) | (indices >= dataset.stored)].tolist()]
        _refuse_unknown(unknown, f"{name} has the training images 0 to {dataset.stored - 1}", where)
    else:
        raise ValueError(
            f"{where}: identifies images by name, but those of {name} have none; use {answer_files.INDEX} instead, "
            f"from 0 to {dataset.stored - 1}"
        )
    order = np.argsort(indices, kind="stable")
    same = order[1:][indices[order][1:] == indices[order][:-1]]
    if same.size:
        twice = list(dict.fromkeys(file.image(int(row)) for row in same))
        raise ValueError(f"{where}: {len(twice):,} images have two answers or more: {listed(twice)}; each needs one")
    return torch.from_numpy(indices)


def _by_name(
    names: Sequence[str], indices: NDArray[np.int64] | None, dataset: Dataset, where: str
) -> NDArray[np.int64]:
    """Return the position of each named image; `indices`, if the file has them too, must agree."""
    places = {one: i for i, one in enumerate(dataset.names)}
    there = f"dataset={dataset.name} calls its training images {listed(dataset.names[:2])}, …"
    _refuse_unknown([one for one in names if one not in places], there, where)
    ours = np.array([places[one] for one in names], dtype=np.int64)
    if indices is not None and (wrong := np.flatnonzero(ours != indices)).size:
        row = int(wrong[0])
        raise ValueError(
            f"{where}: {names[row]} has the index {indices[row]} there and {ours[row]} in dataset={dataset.name}; "
            f"leave {answer_files.INDEX} out if the names are right"
        )
    return ours


def _refuse_unknown(unknown: Sequence[str], there: str, where: str) -> None:
    if unknown:
        raise ValueError(f"{where}: answers {len(unknown):,} unknown images: {listed(unknown)}; {there}")


def _logits(file: AnswerFile, where: str) -> NDArray[np.float32]:
    """Return the answers as logits (N, C). Raise ValueError if a number is not a valid logit or probability."""
    values = file.values
    if not (finite := np.isfinite(values)).all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        rows = int((~finite).any(axis=1).sum())
        raise ValueError(
            f"{where}: {values[row, column]} for {file.image(row)}, class {file.classes[column]} "
            f"({rows:,} of {len(values):,} images have such numbers); every answer must be finite"
        )
    if file.kind == "probabilities":
        low, high, total = values.min(axis=1), values.max(axis=1), values.sum(axis=1, dtype=np.float64)
        wrong = np.flatnonzero((low < 0) | (high > 1 + ROUNDING) | (np.abs(total - 1) > ROUNDING))
        if wrong.size:
            row = int(wrong[0])
            hint = "; divide percentages by 100" if np.allclose(total, 100, atol=1) else ""
            raise ValueError(
                f"{where}: the numbers for {file.image(row)} lie in [{low[row]:.3g}, {high[row]:.3g}] and sum to "
                f"{total[row]:.4g} ({wrong.size:,} of {len(values):,} images are like it); probabilities lie in [0, 1] "
                f"and sum to 1{hint}; if these are logits, name them logits, not probabilities"
            )
        values = np.log(np.maximum(values.astype(np.float64), SMALLEST))
    with np.errstate(over="ignore"):
        logits: NDArray[np.float32] = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(logits).all():
        raise ValueError(f"{where}: has numbers beyond the range of float32, {np.abs(values).max():.3g} for one")
    return logits


def _called(dataset: Dataset, origin: int) -> str:
    return dataset.names[origin] if dataset.names else f"index {origin}"
