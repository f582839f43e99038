"""The teachers' outputs for a batch: from one forward pass for all learners, or from a table (table.py).

Teachers always run on full batches (a smaller last one is padded), because kernels for other shapes round differently.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdrun.data.batches import Batch, Batches, share
from kdrun.data.sets import ImageSet
from kdrun.models.base import Outputs, logits_alone
from kdrun.training import devices
from kdrun.training.networks import guard_inputs
from kdrun.training.rounding import EXACT, Rounding
from kdrun.training.table import Table

log = logging.getLogger(__name__)


@dataclass
class _Epoch:
    """The rows of a teacher's table that an epoch shows, in order, and which of them are missing."""

    teacher: nn.Module | None
    table: Table
    rows: Tensor
    there: Tensor  # the rows, on the table's device
    missing: Tensor  # positions in `rows` that are not known, ascending
    missing_there: Tensor  # their rows, on the table's device
    images: Iterator[Tensor] | None  # the missing rows' images in full batches; None if they are decoded from files
    filled: int = 0  # number of missing rows that were computed


class Teaching:
    """The teachers of one cohort, frozen and in eval mode, each with a table or none.

    None stands for a teacher given as answers, whose table is complete. Without a table, logits are rounded at every
    step, so that a student learns from the same numbers as with one.
    """

    def __init__(
        self,
        teachers: Sequence[nn.Module | None],
        batches: Batches,
        *,
        precision: str,
        device: torch.device,
        tables: Sequence[Table | None] = (),
        rounding: Rounding = EXACT,
    ) -> None:
        self.teachers, self.batches, self.precision, self.device = teachers, batches, precision, device
        self.rounding = rounding
        self.tables = [*tables] or [None for _ in teachers]
        self.computed = self.shown = self.given = 0  # table rows: computed, looked up, and looked up from a bank
        self._epochs: list[_Epoch | None] = []

    def begin(self, epoch: int, start: int) -> None:
        """Begin an epoch at batch `start`."""
        self._epochs = []
        if not any(self.tables):
            return
        indices = self.batches.order(epoch)
        several = any(table.forms > 1 for table in self.tables if table)
        forms = self.batches.shown(epoch) if several else torch.zeros_like(indices)
        first = self.batches.slices[start].start if start < len(self.batches.slices) else len(indices)
        for teacher, table in zip(self.teachers, self.tables, strict=True):
            if table is None:
                self._epochs.append(None)
                continue
            rows = table.rows(forms, indices)
            missing = (~table.known[rows]).nonzero().flatten()
            missing = missing[missing >= first]
            there, missing_there = rows.to(table.place.device), rows[missing].to(table.place.device)
            resident = isinstance(self.batches.images, ImageSet)
            images = self.batches.rendered(forms[missing], indices[missing]) if resident else None
            self._epochs.append(_Epoch(teacher, table, rows, there, missing, missing_there, images))

    @torch.no_grad()
    def teacher_outputs(self, batch: Batch, number: int, *, logits_only: bool, strong: bool = False) -> list[Outputs]:
        """Return each teacher's outputs for batch `number` of the epoch, from tables if logits are enough.

        With `strong`, the outputs for the batch's strong view are added. Tables do not have these: they are always
        computed.
        """
        outputs = self._of_weak(batch, number, logits_only)
        if not strong:
            return outputs
        both = []
        for weak, teacher in zip(outputs, self.teachers, strict=True):
            assert teacher is not None and batch.strong is not None, "the plan refuses a teacher that is not here"
            both.append(weak._replace(strong=self._outputs(teacher, batch.strong.images)))
        return both

    def _of_weak(self, batch: Batch, number: int, logits_only: bool) -> list[Outputs]:
        place = share(self.batches.slices[number], self.batches.rank, self.batches.ranks)
        outputs = []
        for i, teacher in enumerate(self.teachers):
            epoch = self._epochs[i] if self._epochs and logits_only else None
            if epoch is not None and not self._fill(epoch, batch, number):
                self.tables[i] = self._epochs[i] = epoch = None
            if epoch is None:
                assert teacher is not None, "the table of a teacher that is not here is complete, and logits are enough"
                own = self._outputs(teacher, batch.images)
                outputs.append(own._replace(logits=self.rounding.rounded(own.logits)))
                continue
            logits = epoch.table.read(epoch.there[place], self.device)
            self.shown += len(logits)
            self.given += int(epoch.table.given[epoch.rows[place]].sum())
            outputs.append(logits_alone(logits))
        return outputs

    def _fill(self, epoch: _Epoch, batch: Batch, number: int) -> bool:
        """Compute the missing rows of a batch, in full batches together with the rows that the epoch needs next.

        Images that are decoded from files are not decoded ahead: if one of their rows is missing, all rows of the batch
        are computed. Return whether the table can be used.
        """
        place, table, size = self.batches.slices[number], epoch.table, self.batches.batch_size
        while epoch.filled < len(epoch.missing) and epoch.missing[epoch.filled] < place.stop:
            assert epoch.teacher is not None, "the table of a teacher that is not here is complete"
            if epoch.images is not None:
                part = slice(epoch.filled, epoch.filled + size)
                images, rows, there = next(epoch.images), epoch.rows[epoch.missing[part]], epoch.missing_there[part]
                epoch.filled += len(rows)
            else:
                images, rows, there = batch.images, epoch.rows[place], epoch.there[place]
                epoch.filled = int((epoch.missing < place.stop).sum())
            if not (table.tested or self._independent(epoch.teacher, images)):
                log.warning(
                    "teacher logits not cached: the logits that this teacher gives to an image depend on which images "
                    "share its batch"
                )
                return False
            table.tested = True
            logits = self._outputs(epoch.teacher, images).logits
            try:
                table.write(rows, there, logits)
            except OSError as error:
                log.warning("teacher logits not cached: they cannot be written to disk (%s)", error.strerror or error)
                return False
            self.computed += len(rows)
        return True

    def _independent(self, teacher: nn.Module, images: Tensor) -> bool:
        """Return whether the logits of a full batch stay the same bit for bit if the images are permuted."""
        size = self.batches.batch_size
        full = images[torch.arange(size, device=images.device) % len(images)]
        moved = full.roll(1, 0).contiguous(memory_format=torch.channels_last)
        full = full.contiguous(memory_format=torch.channels_last)
        return torch.equal(self._outputs(teacher, full).logits, self._outputs(teacher, moved).logits.roll(-1, 0))

    def _outputs(self, teacher: nn.Module, images: Tensor) -> Outputs:
        """Return a teacher's outputs for images (N, C, H, W)."""
        size = self.batches.batch_size if self.batches.ranks == 1 else len(images)  # several ranks have a share each
        return in_full_batches(teacher, images, size, self.precision, self.device)


def in_full_batches(teacher: nn.Module, images: Tensor, size: int, precision: str, device: torch.device) -> Outputs:
    """Return a teacher's outputs for images (N, C, H, W), run in batches of `size`; a smaller last one is padded."""
    n = len(images)
    count = -(-n // size) * size
    if count != n:
        images = images[torch.arange(count, device=images.device) % n]
        images = images.contiguous(memory_format=torch.channels_last)
    parts = []
    for part in torch.split(images, size):
        with devices.autocast(precision, device), guard_inputs(part, "the teacher"):
            outputs: Outputs = teacher(part)
        parts.append(outputs)
    return parts[0] if count == n == size else _joined(parts, n)


def _joined(parts: Sequence[Outputs], n: int) -> Outputs:
    """Concatenate the outputs of several parts, and cut off the padding."""

    def join(tensors: Sequence[Tensor]) -> Tensor:
        return tensors[0][:n] if len(tensors) == 1 else torch.cat(list(tensors))[:n]

    first = parts[0]
    return Outputs(
        join([p.logits for p in parts]),
        {name: join([p.features[name] for p in parts]) for name in first.features},
        {name: join([p.preactivations[name] for p in parts]) for name in first.preactivations},
        join([p.embedding for p in parts]),
    )
