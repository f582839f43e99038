"""kdrun train teacher: the large network alone, so that every later command finds it."""

from __future__ import annotations

from omegaconf import DictConfig

from kdrun.training.stop import StopFlag
from kdrun.verbs import planning
from kdrun.verbs.lineup import Entry
from kdrun.verbs.session import Run, task
from kdrun.verbs.tell import tell_comparison
from kdrun.verbs.wanted import Wanted, workshop


@task
def main(cfg: DictConfig, run: Run) -> None:
    """Train or find the teacher, and show its row."""
    with StopFlag() as stop:
        shop = workshop(cfg, run.record["command"], stop)
        request = Wanted.read(cfg, shop.device).teacher()
        run.record["formula"] = planning.formula(request)
        planning.check([Entry("teacher", request)], shop.device)
        if cfg.plan:
            return planning.show([request], shop)
        run.use("teacher", *shop.obtain([request]))
    tell_comparison(run)
