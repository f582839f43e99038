"""The teachers' outputs for a batch: one forward pass for all learners, or a cache if images come in few forms.

A teacher has the same outputs for the same pixels. Without augmentation an image has one form, with flips alone two:
then its logits are computed once in a command and looked up from the second epoch on, for all seeds and students.
Teachers always run on full batches (a smaller last one is filled up), because kernels for other shapes round
differently: so a cached logit is the computed one bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdrun.data.batches import Batch, Batches
from kdrun.models.base import Outputs
from kdrun.training import devices
from kdrun.training.networks import guard_inputs

MAX_FORMS = 2  # crops with a padding of 4 and flips have 162: hardly any comes twice in a training
MEMORY_SHARE = 0.2  # of the free memory that caches may take


class LogitCache:
    """The logits of one teacher for every form of every image of a training set."""

    def __init__(self) -> None:
        self.complete = False
        self._logits: Tensor | None = None  # (forms, N, C)

    def write(self, form: Tensor, indices: Tensor, logits: Tensor, shape: tuple[int, int]) -> None:
        """Store logits (n, C) of the forms (n,) of the images at `indices` (n,); `shape` is (forms, N)."""
        if self._logits is None:
            self._logits = logits.new_empty((*shape, logits.shape[1]))
        self._logits[form, indices] = logits

    def read(self, form: Tensor, indices: Tensor) -> Tensor:
        """Return the logits (n, C) of the forms (n,) of the images at `indices` (n,)."""
        assert self._logits is not None, "it is complete"
        return self._logits[form, indices]


class Teaching:
    """The teachers of one cohort, frozen and in eval mode, with a cache each or none."""

    def __init__(
        self,
        teachers: Sequence[nn.Module],
        batches: Batches,
        *,
        precision: str,
        device: torch.device,
        caches: Sequence[LogitCache] = (),
    ) -> None:
        self.teachers, self.batches, self.precision, self.device = teachers, batches, precision, device
        self.caches = caches if len(caches) == len(teachers) else ()
        self._whole = False  # whether all batches of this epoch so far were written to the caches

    def begin(self, start: int) -> None:
        """Begin an epoch at batch `start`."""
        self._whole = start == 0

    def end(self) -> None:
        """End an epoch after its last batch: caches that were written in all of it are complete."""
        for cache in self.caches:
            cache.complete = cache.complete or self._whole

    @torch.no_grad()
    def teacher_outputs(self, batch: Batch, *, logits_only: bool) -> list[Outputs]:
        """Return each teacher's outputs; if logits are enough, from the caches once they are complete."""
        if not (self.caches and logits_only):
            self._whole = False
            return [self._outputs(teacher, batch.images) for teacher in self.teachers]
        form = self.batches.forms(batch)
        shape = (self.batches.form_count, len(self.batches.images))
        outputs = []
        for teacher, cache in zip(self.teachers, self.caches, strict=True):
            if not cache.complete:
                cache.write(form, batch.indices, self._outputs(teacher, batch.images).logits, shape)
                if shape[0] == 2:
                    mirrored = batch.images.flip(3).contiguous(memory_format=torch.channels_last)
                    cache.write(1 - form, batch.indices, self._outputs(teacher, mirrored).logits, shape)
            logits = cache.read(form, batch.indices)
            outputs.append(Outputs(logits, {}, {}, logits[:, :0]))
        return outputs

    def _outputs(self, teacher: nn.Module, images: Tensor) -> Outputs:
        """Return a teacher's outputs for images (N, C, H, W), run as full batches; a smaller one is filled up."""
        n = len(images)
        size = self.batches.batch_size if self.batches.ranks == 1 else n  # with several ranks each has a share
        count = -(-n // size) * size
        if count != n:
            images = images[torch.arange(count, device=images.device) % n]
            images = images.contiguous(memory_format=torch.channels_last)
        parts = []
        for part in torch.split(images, size):
            with devices.autocast(self.precision, self.device), guard_inputs(part, "the teacher"):
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


def no_cache_reason(batches: Batches, classes: int, teachers: int, device: torch.device) -> str | None:
    """Return why logits cannot be cached, None if they can."""
    if batches.ranks > 1:
        return "several processes each see a share of the images"
    if batches.form_count > MAX_FORMS:
        return f"the augmentation makes {batches.form_count} views of each image"
    size = 4 * batches.form_count * len(batches.images) * classes * teachers
    if size > MEMORY_SHARE * devices.free_memory(device):
        return f"they would take {size / 1e9:.1f} GB"
    return None
