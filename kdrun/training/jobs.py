"""Send a training from rank 0 to the other ranks: the requests of a cohort, and their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from kdrun.data.decoders import Decoders, Workers
from kdrun.data.sets import FileSet, ImageSet
from kdrun.training.distributed import Ranks
from kdrun.training.request import Request, Sets

PIECE = 1 << 28  # bytes sent at once


@dataclass(frozen=True)
class Job:
    """A cohort to train, whether on GPUs, and the worker processes that decode its images."""

    requests: Sequence[Request]
    cuda: bool
    workers: Workers


class _Resident(NamedTuple):
    """Placeholder for an image set whose pixels are broadcast separately."""

    shape: tuple[int, ...]  # (N, H, W, C)


def send(ranks: Ranks, job: Job) -> None:
    """Send a cohort to the other ranks; all its requests have the same images."""
    sets = job.requests[0].sets
    parts = [sets.train, sets.val, sets.test]
    nothing: Any = None
    described = [_described(part) for part in parts]
    ranks.send((replace(job, requests=[replace(r, sets=nothing) for r in job.requests]), described, sets.classes))
    with ranks.collective():
        for part in parts:
            if isinstance(part, ImageSet):
                _broadcast(_pixels(part))
                _broadcast(part.labels.cpu())


def receive(ranks: Ranks) -> Job | None:
    """Wait for a cohort and return it, None once rank 0 has no more."""
    if (message := ranks.receive()) is None:
        return None
    job: Job
    job, parts, classes = message
    decoders = Decoders()
    train, val, test = (_received(part, decoders) for part in parts)
    assert train is not None and test is not None
    sets = Sets(train, val, test, classes)
    return replace(job, requests=[replace(r, sets=sets) for r in job.requests])


def _described(part: ImageSet | FileSet | None) -> _Resident | FileSet | None:
    if isinstance(part, ImageSet):
        return _Resident(_pixels(part).shape)
    return part and replace(part, decoders=Decoders())  # each rank has its own decoders


def _received(part: _Resident | FileSet | None, decoders: Decoders) -> ImageSet | FileSet | None:
    if not isinstance(part, _Resident):
        return part and replace(part, decoders=decoders)
    pixels = _broadcast(torch.empty(part.shape, dtype=torch.uint8))
    return ImageSet(pixels.permute(0, 3, 1, 2), _broadcast(torch.empty(part.shape[0], dtype=torch.int64)))


def _pixels(images: ImageSet) -> Tensor:
    return images.images.permute(0, 2, 3, 1).cpu()  # contiguous, as the images are in channels_last


def _broadcast(content: Tensor) -> Tensor:
    for piece in torch.split(content.view(-1).view(torch.uint8), PIECE):
        dist.broadcast(piece, src=0)
    return content
