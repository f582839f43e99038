"""kdrun train teacher: train the large network, which later commands then find in the store."""

from __future__ import annotations

from omegaconf import DictConfig

from kdrun.lifecycle.task import RunRecord, task
from kdrun.verbs.train_baseline import train_alone


@task
def main(cfg: DictConfig, run: RunRecord) -> None:
    """Train or find the teacher, and show its row."""
    train_alone("teacher", cfg, run)
