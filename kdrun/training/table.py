"""A table of a teacher's logits, so that no view of an image passes through the teacher twice.

Images come in countable forms if they are only cropped and mirrored, or if augment.views is set. A row, one image in
one form, is computed when an epoch shows it for the first time; the rest is looked up. The logits of an image do not
depend on which images share a full batch with it, so that a row is the computed one bit for bit; rows of batches of
another size round differently, and have a table of their own.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdrun.training import devices

MEMORY_SHARE = 0.2  # of the free memory that all tables of a cohort may take
WORTH = 0.98  # a larger share of forward passes than this is not worth a table
DISK = "memory-mapped on disk"


@dataclass(frozen=True)
class Place:
    """Where a table lies: on a device, or in a file that is removed with it."""

    device: torch.device
    folder: Path | None = None

    def empty(self, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Return memory for logits of this shape, whose content is not set."""
        if self.folder is None:
            return torch.empty(shape, dtype=dtype, device=self.device)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".table-") as file:  # which lives while it is mapped
            return torch.from_file(file.name, shared=True, size=shape[0] * shape[1], dtype=dtype).view(shape)

    def __str__(self) -> str:
        if self.folder is not None:
            return DISK
        return "in memory" if self.device.type == "cpu" else f"on {self.device}"


class Table:
    """One teacher's logits for the forms of a training set's images: a row is form · images + index."""

    def __init__(self, forms: int, images: int, place: Place) -> None:
        self.forms, self.images, self.place = forms, images, place
        self.known = torch.zeros(forms * images, dtype=torch.bool)
        self.tested = False  # whether a row's logits were seen not to depend on the rest of its batch
        self._logits: Tensor | None = None  # (forms · N, C)

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
        """Store logits (n, C) as the rows (n,), which are given on the CPU and on the table's own device."""
        if self._logits is None:
            self._logits = self.place.empty((len(self.known), logits.shape[1]), logits.dtype)
        self._logits[there] = logits.to(self.place.device)
        self.known[rows] = True

    def read(self, there: Tensor, device: torch.device) -> Tensor:
        """Return the logits (n, C), on `device`, of known rows (n,), which are given on the table's own device."""
        assert self._logits is not None, "rows are known"
        return self._logits.index_select(0, there).to(device, non_blocking=True)


def expected_share(forms: int, epochs: float) -> float:
    """Return the expected share of all forward passes that a table leaves: V·(1 − (1 − 1/V)^E) / E.

    V forms of an image, each as likely as the others, are shown in E epochs, those of all seeds together.
    """
    return float(forms * (1 - (1 - 1 / forms) ** epochs) / epochs)


def place_for(size: int, device: torch.device, limit: float, folder: Path) -> Place | str:
    """Return the best place for tables of `size` bytes, or why there is none, as the end of a sentence."""
    if size > limit:
        return f"they would take {size / 1e9:.1f} GB, and teacher.table_gb={limit / 1e9:g}"
    for memory in dict.fromkeys((device, torch.device("cpu"))):
        if size <= MEMORY_SHARE * devices.free_memory(memory):
            return Place(memory)
    free = shutil.disk_usage(folder).free
    if size <= 0.5 * free:
        return Place(torch.device("cpu"), folder)
    return f"they would take {size / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free"
