"""A table of a teacher's logits, so that no view of an image passes through the teacher twice.

The number of forms of an image is finite if images are only cropped and mirrored, or if augment.views is set. A row is
one image in one form: it is computed when an epoch shows it for the first time, and looked up from then on. Logits do
not depend on which images share a full batch, so a row looked up equals the computed one bit for bit. Batches of
another size round differently, so they have a table of their own.
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

MEMORY_SHARE = 0.2  # of the free memory, for all tables of a cohort
WORTH = 0.98  # if a larger share of forward passes would remain, a table is not worth it
DISK = "memory-mapped on disk"
PART = 65_536  # rows that are copied at once


@dataclass(frozen=True)
class Place:
    """Where a table is stored: on a device, or in a file that is removed with it."""

    device: torch.device
    folder: Path | None = None

    def empty(self, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Return a zero tensor of this shape for logits. Raise OSError if the disk is full."""
        if self.folder is None:
            return torch.zeros(shape, dtype=dtype, device=self.device)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".table-") as file:  # its data last while it is mapped
            if hasattr(os, "posix_fallocate"):  # otherwise writing a page on a full disk kills the process (SIGBUS)
                os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1] * dtype.itemsize)
            return torch.from_file(file.name, shared=True, size=shape[0] * shape[1], dtype=dtype).view(shape)

    def __str__(self) -> str:
        if self.folder is not None:
            return DISK
        return "in memory" if self.device.type == "cpu" else f"on {self.device}"


class Table:
    """One teacher's logits for all forms of a training set's images, in row form · images + index.

    A student always reads them rounded as `rounding` says, even when they were just computed.
    """

    def __init__(self, forms: int, images: int, place: Place, rounding: Rounding = EXACT) -> None:
        self.forms, self.images, self.place, self.rounding = forms, images, place, rounding
        self.known = torch.zeros(forms * images, dtype=torch.bool)
        self.given = torch.zeros(forms * images, dtype=torch.bool)  # rows that were added from another table
        self.tested = False  # whether a test showed that a row's logits do not depend on the rest of its batch
        self.classes = 0  # unknown until the first rows
        self._packed: dict[str, Tensor] = {}  # stored tensors, each (forms · N, …)

    @classmethod
    def whole(cls, logits: Tensor, place: Place) -> Table:
        """Return a complete table from a teacher's logits (N, C) for the images without augmentation."""
        rows = torch.arange(len(logits))
        table = cls(1, len(logits), place)
        table.write(rows, rows.to(place.device), logits)
        table.tested = True
        return table

    def rows(self, forms: Tensor, indices: Tensor) -> Tensor:
        """Return the rows (n,) int64 of images in forms; a table with one form uses it for every view."""
        return indices if self.forms == 1 else forms * self.images + indices

    def write(self, rows: Tensor, there: Tensor, logits: Tensor) -> None:
        """Store logits (n, C) in rows (n,), given both on the CPU (`rows`) and on the table's device (`there`).

        Raise OSError if the table belongs on disk and the disk is full.
        """
        self._store(rows, there, self.rounding.pack(logits), logits.shape[1])

    def add(self, known: Tensor, packed: Mapping[str, Tensor], classes: int) -> None:
        """Add what `tensors` of another table returned: the rows that are `known` (forms · N,), on the CPU.

        If the given rows are complete, and this table is empty and on the CPU, they are used without a copy. Raise
        ValueError if their shape does not fit, and OSError like `write`.
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
        """Return which rows are `known` (forms · N,), and by name the stored tensors of these rows, on the CPU."""
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
        """Return the logits (n, C), on `device`, of known rows `there` (n,), given on the table's device."""
        packed = {n: v.index_select(0, there).to(device, non_blocking=True) for n, v in self._packed.items()}
        return self.rounding.unpack(packed, self.classes)


def expected_share(forms: int, epochs: float) -> float:
    """Return the expected share of forward passes that remain with a table: V·(1 − (1 − 1/V)^E) / E.

    V is the number of forms of an image, all equally likely; E is the number of epochs, summed over all seeds.
    """
    return float(forms * (1 - (1 - 1 / forms) ** epochs) / epochs)


def place_for(size: int, device: torch.device, limit: float, folder: Path, *, there: bool = False) -> Place | str:
    """Return the best place for tables of `size` bytes, or why there is none, as the end of a sentence.

    `there` means that all rows are already in files, which can be mapped and need no memory of their own.
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
