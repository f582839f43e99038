"""What all trainings of one command share."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from kdrun.config import EVERY_EPOCH, Every
from kdrun.data.decoders import HERE, Workers
from kdrun.signals import StopFlag
from kdrun.store import Store
from kdrun.tracking.base import Tracking
from kdrun.training import distributed
from kdrun.training.distributed import Ranks


@dataclass(frozen=True)
class Settings:
    """Where and how a command's trainings run; nothing of it is part of a spec."""

    store: Store
    device: torch.device
    stop: StopFlag
    command: str = ""  # as typed
    workers: Workers = HERE
    checkpoint_every: Every = EVERY_EPOCH
    anew: str = ""  # the command's token with force=true: what was not begun anew for it is trained anew
    cache_logits: bool = True  # compute a teacher's logits once for each view of an image if these can be counted
    table_gb: float = 8.0  # the largest table of them
    tracking: Tracking = field(default_factory=Tracking)
    ranks: Ranks = field(default_factory=distributed.current)
