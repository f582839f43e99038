"""kdrun distill: a teacher, the small network alone, and the small network with the teacher's help."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from kdrun.store import RunFailed
from kdrun.training.stop import StopFlag
from kdrun.verbs import planning
from kdrun.verbs.session import Run, task
from kdrun.verbs.tell import tell_comparison
from kdrun.verbs.wanted import Wanted, workshop

log = logging.getLogger(__name__)


@task
def main(cfg: DictConfig, run: Run) -> None:
    """Train what is missing, compare the three, and say where everything is."""
    with StopFlag() as stop:
        shop = workshop(cfg, run.record["command"], stop)
        wanted = Wanted.read(cfg, shop.device)
        seeds = range(cfg.seed, cfg.seed + cfg.seeds)

        pinned = wanted.pinned(shop.store)
        teacher_request = wanted.teacher() if pinned is None else None
        small = []
        for seed in seeds:
            if cfg.transfer.labels:  # without labels nothing can be learned alone
                small.append(wanted.baseline(seed))
            small.append(wanted.student(seed, pinned or teacher_request))  # type: ignore[arg-type]
        run.record["formula"] = planning.formula(small[-1])
        log.info("student learns from %s", run.record["formula"])

        everything = ([teacher_request] if teacher_request else []) + small
        planning.check(everything)
        if cfg.plan:
            return planning.show(everything, shop)

        shop.expect(everything)
        if pinned is not None:
            log.info("teacher: using %s, from %s", pinned.fingerprint, cfg.teacher["from"])
            teacher = pinned
        else:
            assert teacher_request is not None
            (teacher,) = shop.obtain([teacher_request])
        run.use("teacher", teacher)
        if not teacher.finished:
            raise RunFailed(f"the teacher {teacher.result['status']}: {teacher.result['reason']}")
        for request, artifact in zip(small, shop.obtain(small), strict=True):
            run.use(request.role, artifact)
    tell_comparison(run)
