"""The teachers' outputs for a batch: one forward pass for all learners, or rows of a table (table.py).

Teachers always run on full batches (a smaller last one is filled up), because kernels for other shapes round
differently.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdrun.data.batches import Batch, Batches, share
from kdrun.data.sets import ImageSet
from kdrun.models.base import Outputs, logits_alone
from kdrun.training import devices
from kdrun.training.networks import guard_inputs
from kdrun.training.table import Table

log = logging.getLogger(__name__)


@dataclass
class _Epoch:
    """What an epoch shows of one table: in the order of its images, and the rows among them that are not known."""

    indices: Tensor
    forms: Tensor
    rows: Tensor
    on_device: Tensor  # the rows
    missing: Tensor  # places in this order, ascending
    filled: int = 0  # of the missing ones


class Teaching:
    """The teachers of one cohort, frozen and in eval mode, with a table each or none.

    A teacher that is None has answered before: its table is complete.
    """

    def __init__(
        self,
        teachers: Sequence[nn.Module | None],
        batches: Batches,
        *,
        precision: str,
        device: torch.device,
        tables: Sequence[Table] = (),
    ) -> None:
        self.teachers, self.batches, self.precision, self.device = teachers, batches, precision, device
        self.tables = tuple(tables)
        self.computed = self.shown = 0  # rows of tables, and rows looked up, in this training
        self._epochs: list[_Epoch] = []

    def begin(self, epoch: int, start: int) -> None:
        """Begin an epoch at batch `start`."""
        self._epochs = []
        if not self.tables:
            return
        indices = self.batches.order(epoch)
        forms = self.batches.shown(epoch) if max(t.forms for t in self.tables) > 1 else torch.zeros_like(indices)
        first = self.batches.slices[start].start if start < len(self.batches.slices) else len(indices)
        for table in self.tables:
            rows = table.rows(forms, indices)
            missing = (~table.known[rows]).nonzero().flatten()
            missing = missing[missing >= first]
            self._epochs.append(_Epoch(indices, forms, rows, rows.to(table.place.device), missing))

    @torch.no_grad()
    def teacher_outputs(self, batch: Batch, number: int, *, logits_only: bool) -> list[Outputs]:
        """Return each teacher's outputs for the epoch's batch of that number; from tables if logits are enough."""
        if self.tables and logits_only:
            self._fill(batch, number)
        if not (self.tables and logits_only):
            return [self._outputs(_there(teacher), batch.images) for teacher in self.teachers]
        place = share(self.batches.slices[number], self.batches.rank, self.batches.ranks)
        outputs = []
        for table, epoch in zip(self.tables, self._epochs, strict=True):
            logits = table.read(epoch.on_device[place], self.device)
            self.shown += len(logits)
            outputs.append(logits_alone(logits))
        return outputs

    def _fill(self, batch: Batch, number: int) -> None:
        """Compute the rows of a batch that are not known, in full batches of those that the epoch shows next.

        Images that are decoded from files for each batch are not decoded ahead: there all rows of the batch are
        computed if one is missing.
        """
        place = self.batches.slices[number]
        resident = isinstance(self.batches.images, ImageSet)
        for teacher, table, epoch in zip(self.teachers, self.tables, self._epochs, strict=True):
            while epoch.filled < len(epoch.missing) and epoch.missing[epoch.filled] < place.stop:
                if resident:
                    shown = epoch.missing[epoch.filled : epoch.filled + self.batches.batch_size]
                    images = self.batches.rendered(epoch.forms[shown], epoch.indices[shown])
                    epoch.filled += len(shown)
                else:
                    shown, images = torch.arange(place.start, place.stop), batch.images
                    epoch.filled = int((epoch.missing < place.stop).sum())
                if not (table.tested or self._independent(_there(teacher), images)):
                    log.warning(
                        "teacher logits not cached: the logits that this teacher gives to an image depend on which "
                        "images share its batch"
                    )
                    self.tables = ()
                    return
                table.tested = True
                table.write(epoch.rows[shown], self._outputs(_there(teacher), images).logits)
                self.computed += len(shown)

    def _independent(self, teacher: nn.Module, images: Tensor) -> bool:
        """Return whether a row of a full batch stays the same bit for bit if the rows change places."""
        size = self.batches.batch_size
        full = images[torch.arange(size, device=images.device) % len(images)]
        moved = full.roll(1, 0).contiguous(memory_format=torch.channels_last)
        full = full.contiguous(memory_format=torch.channels_last)
        return torch.equal(self._outputs(teacher, full).logits, self._outputs(teacher, moved).logits.roll(-1, 0))

    def _outputs(self, teacher: nn.Module, images: Tensor) -> Outputs:
        """Return a teacher's outputs for images (N, C, H, W)."""
        size = self.batches.batch_size if self.batches.ranks == 1 else len(images)  # of several ranks each has a share
        return in_full_batches(teacher, images, size, self.precision, self.device)


def in_full_batches(teacher: nn.Module, images: Tensor, size: int, precision: str, device: torch.device) -> Outputs:
    """Return a teacher's outputs for images (N, C, H, W), run in batches of `size`; a smaller one is filled up."""
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
    """Concatenate the outputs of several parts, and cut off what was filled up."""

    def join(tensors: Sequence[Tensor]) -> Tensor:
        return tensors[0][:n] if len(tensors) == 1 else torch.cat(list(tensors))[:n]

    first = parts[0]
    return Outputs(
        join([p.logits for p in parts]),
        {name: join([p.features[name] for p in parts]) for name in first.features},
        {name: join([p.preactivations[name] for p in parts]) for name in first.preactivations},
        join([p.embedding for p in parts]),
    )


def _there(teacher: nn.Module | None) -> nn.Module:
    assert teacher is not None, "the table of a teacher that is not here is complete"
    return teacher
