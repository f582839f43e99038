"""What all trainings of one command share."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

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
    workers: int = 0  # processes that decode images
    anew_before: float = 0.0  # force=true: train anew what was begun before, in seconds since the epoch
    cache_logits: bool = True  # compute a teacher's logits once if its images come in few forms
    tracking: Tracking = field(default_factory=Tracking)
    ranks: Ranks = field(default_factory=distributed.current)
