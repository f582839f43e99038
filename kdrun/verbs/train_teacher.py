"""kdrun train teacher: the large network alone, so that every later command finds it."""

from __future__ import annotations

from omegaconf import DictConfig

from kdrun.lifecycle.ending import tell_comparison
from kdrun.lifecycle.task import Run, task
from kdrun.plan import check
from kdrun.plan.requests import Wanted, workshop
from kdrun.plan.waves import Entry
from kdrun.training.stop import StopFlag


@task
def main(cfg: DictConfig, run: Run) -> None:
    """Train or find the teacher, and show its row."""
    with StopFlag() as stop:
        shop = workshop(cfg, run.record["command"], stop)
        request = Wanted.read(cfg, shop.device).teacher()
        run.record["formula"] = check.formula(request)
        check.check([Entry("teacher", request)], shop.device)
        if cfg.plan:
            return check.show([request], shop)
        run.use("teacher", *shop.obtain([request]))
    tell_comparison(run)
