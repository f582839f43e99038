"""A table of a teacher's logits, so that no view of an image passes through the teacher twice.

Images come in countable forms if they are only cropped and mirrored, or if augment.views is set. A row, one image in
one form, is computed when an epoch shows it for the first time; the rest is looked up. The logits of an image do not
depend on which images share a full batch with it, so that a row is the computed one bit for bit; rows of batches of
another size round differently, and have a table of their own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdrun.training import devices
from kdrun.training.rounding import EXACT, Rounding

MEMORY_SHARE = 0.2  # of the free memory that all tables of a cohort may take
WORTH = 0.98  # a larger share of forward passes than this is not worth a table
DISK = "memory-mapped on disk"
PART = 65_536  # rows that are copied at once


@dataclass(frozen=True)
class Place:
    """Where a table lies: on a device, or in a file that is removed with it."""

    device: torch.device
    folder: Path | None = None

    def empty(self, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Return memory for logits of this shape, all zero. Raise OSError if the disk has no room."""
        if self.folder is None:
            return torch.zeros(shape, dtype=dtype, device=self.device)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".table-") as file:  # which lives while it is mapped
            if hasattr(os, "posix_fallocate"):  # a page for which there is no room would end the process
                os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1] * dtype.itemsize)
            return torch.from_file(file.name, shared=True, size=shape[0] * shape[1], dtype=dtype).view(shape)

    def __str__(self) -> str:
        if self.folder is not None:
            return DISK
        return "in memory" if self.device.type == "cpu" else f"on {self.device}"


class Table:
    """One teacher's logits for the forms of a training set's images: a row is form · images + index.

    A student reads them as `rounding` leaves them, from the first time on.
    """

    def __init__(self, forms: int, images: int, place: Place, rounding: Rounding = EXACT) -> None:
        self.forms, self.images, self.place, self.rounding = forms, images, place, rounding
        self.known = torch.zeros(forms * images, dtype=torch.bool)
        self.given = torch.zeros(forms * images, dtype=torch.bool)  # those that were known before this command
        self.tested = False  # whether a row's logits were seen not to depend on the rest of its batch
        self.classes = 0  # not known yet
        self._packed: dict[str, Tensor] = {}  # each (forms · N, …)

    @classmethod
    def whole(cls, logits: Tensor, place: Place) -> Table:
        """Return the table of a teacher that is not here, from its logits (N, C) for the images as they are."""
        rows = torch.arange(len(logits))
        table = cls(1, len(logits), place)
        table.write(rows, rows.to(place.device), logits)
        table.tested = True
        return table

    def rows(self, forms: Tensor, indices: Tensor) -> Tensor:
        """Return the rows of images in forms, (n,) int64; a table of one form has it for every view."""
        return indices if self.forms == 1 else forms * self.images + indices

    def write(self, rows: Tensor, there: Tensor, logits: Tensor) -> None:
        """Store logits (n, C) as the rows (n,), which are given on the CPU and on the table's own device.

        Raise OSError if they were to lie on a disk that has no room.
        """
        self._store(rows, there, self.rounding.pack(logits), logits.shape[1])

    def add(self, known: Tensor, packed: Mapping[str, Tensor], classes: int) -> None:
        """Add what `tensors` of another table returned: the rows that are `known` (forms · N,), on the CPU.

        If they are all there, they stay where they are unless this table is to lie elsewhere. Raise ValueError if they
        are of another shape, and OSError as `write` does.
        """
        places = known.cumsum(0) - 1
        if known.shape != self.known.shape or any(len(values) != int(known.sum()) for values in packed.values()):
            raise ValueError(f"it has no rows of {len(self.known):,}, or not as many as it says")
        new = known & ~self.known
        if bool(new.all()) and self.place.device.type == "cpu":
            self._packed, self.classes = dict(packed), classes
            self.known |= new
        else:
            for rows in torch.split(new.nonzero().flatten(), PART):
                some = {name: values[places[rows]] for name, values in packed.items()}
                self._store(rows, rows.to(self.place.device), some, classes)
        self.given |= new

    def tensors(self) -> dict[str, Tensor]:
        """Return which rows are `known` (forms · N,), and by name what is kept of these, in order, on the CPU."""
        if bool(self.known.all()):
            return {"known": self.known, **{name: values.cpu() for name, values in self._packed.items()}}
        parts = torch.split(self.known.nonzero().flatten(), PART)
        beside, kept = Place(torch.device("cpu"), self.place.folder), {}
        for name, values in self._packed.items():
            kept[name] = beside.empty((int(self.known.sum()), values.shape[1]), values.dtype)
            for i, rows in enumerate(parts):
                kept[name][i * PART : i * PART + len(rows)] = values[rows.to(self.place.device)].cpu()
        return {"known": self.known, **kept}

    def _store(self, rows: Tensor, there: Tensor, packed: Mapping[str, Tensor], classes: int) -> None:
        if not self._packed:
            made = {n: self.place.empty((len(self.known), v.shape[1]), v.dtype) for n, v in packed.items()}
            self._packed, self.classes = made, classes
        for name, values in packed.items():
            self._packed[name][there] = values.to(self.place.device)
        self.known[rows] = True

    def read(self, there: Tensor, device: torch.device) -> Tensor:
        """Return the logits (n, C), on `device`, of known rows (n,), which are given on the table's own device."""
        packed = {n: v.index_select(0, there).to(device, non_blocking=True) for n, v in self._packed.items()}
        return self.rounding.unpack(packed, self.classes)


def expected_share(forms: int, epochs: float) -> float:
    """Return the expected share of all forward passes that a table leaves: V·(1 − (1 − 1/V)^E) / E.

    V forms of an image, each as likely as the others, are shown in E epochs, those of all seeds together.
    """
    return float(forms * (1 - (1 - 1 / forms) ** epochs) / epochs)


def place_for(size: int, device: torch.device, limit: float, folder: Path, *, there: bool = False) -> Place | str:
    """Return the best place for tables of `size` bytes, or why there is none, as the end of a sentence.

    `there` says that all of them lie in files, which take no memory of their own.
    """
    if size > limit:
        return f"they would take {size / 1e9:.1f} GB, more than teacher.table_gb={limit / 1e9:g}"
    for memory in dict.fromkeys((device, torch.device("cpu"))):
        if size <= MEMORY_SHARE * devices.free_memory(memory):
            return Place(memory)
    if there:
        return Place(torch.device("cpu"))
    free = shutil.disk_usage(folder).free
    if size <= 0.5 * free:
        return Place(torch.device("cpu"), folder)
    return f"they would take {size / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free"
