"""kdrun train teacher: the large network, which every later command finds in the store."""

from __future__ import annotations

from omegaconf import DictConfig

from kdrun.lifecycle.ending import show_comparison
from kdrun.lifecycle.task import RunRecord, task
from kdrun.plan import check
from kdrun.plan.requests import RequestBuilder, workshop
from kdrun.plan.waves import requested, waves
from kdrun.training.stop import StopFlag


@task
def main(cfg: DictConfig, run: RunRecord) -> None:
    """Train or find the teacher, and show its row."""
    with StopFlag() as stop:
        shop = workshop(run.invocation, cfg, run.folder, stop)
        (entries,) = waves(RequestBuilder.read("train_teacher", cfg, run.record["choices"], shop.device), shop.store)
        requests = requested(entries)
        run.record["formula"] = check.formula(requests[0])
        check.check(entries, shop.device)
        if cfg.plan:
            return check.show(requests, shop)
        run.use("teacher", *shop.obtain(requests))
    show_comparison(run)
