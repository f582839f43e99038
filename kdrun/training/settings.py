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
    """Where and how a command's trainings run. None of this is part of a spec."""

    store: Store
    device: torch.device
    stop: StopFlag
    command: str = ""  # as typed
    workers: Workers = HERE
    checkpoint_every: Every = EVERY_EPOCH
    anew: str = ""  # with force=true the command's token: trainings not restarted under it are retrained
    cache_logits: bool = True  # compute a teacher's logits once per view of an image, if the views are countable
    table_gb: float = 8.0  # limit for the tables of these logits
    tracking: Tracking = field(default_factory=Tracking)
    ranks: Ranks = field(default_factory=distributed.current)
