"""kdrun train baseline: the small network alone, exactly as distill trains it for its comparison."""

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
    """Train or find the baseline of every seed, and show its row."""
    if not cfg.transfer.labels:
        raise ValueError("transfer.labels=false: a baseline learns from labels alone; type kdrun distill instead")
    with StopFlag() as stop:
        shop = workshop(cfg, run.record["command"], stop)
        wanted = Wanted.read(cfg, shop.device)
        requests = [wanted.baseline(seed) for seed in range(cfg.seed, cfg.seed + cfg.seeds)]
        run.record["formula"] = planning.formula(requests[0])
        planning.check([Entry("baseline", r) for r in requests], shop.device)
        if cfg.plan:
            return planning.show(requests, shop)
        run.use("baseline", *shop.obtain(requests))
    tell_comparison(run)
