"""kdrun train teacher: the large network alone, so that every later command finds it."""

from __future__ import annotations

from omegaconf import DictConfig

from kdrun.lifecycle.ending import tell_comparison
from kdrun.lifecycle.task import Run, task
from kdrun.plan import check
from kdrun.plan.requests import Wanted, workshop
from kdrun.plan.waves import requested, waves
from kdrun.training.stop import StopFlag


@task
def main(cfg: DictConfig, run: Run) -> None:
    """Train or find the teacher, and show its row."""
    with StopFlag() as stop:
        shop = workshop(run.invocation, cfg, run.folder, stop)
        (entries,) = waves(Wanted.read("train_teacher", cfg, run.record["choices"], shop.device), shop.store)
        requests = requested(entries)
        run.record["formula"] = check.formula(requests[0])
        check.check(entries, shop.device)
        if cfg.plan:
            return check.show(requests, shop)
        run.use("teacher", *shop.obtain(requests))
    tell_comparison(run)
