"""kdrun train baseline: train the small network without a teacher, exactly as distill does."""

from __future__ import annotations

from omegaconf import DictConfig

from kdrun import console
from kdrun.lifecycle.ending import show_comparison
from kdrun.lifecycle.task import RunRecord, task
from kdrun.plan import check
from kdrun.plan.requests import RequestBuilder, new_obtainer
from kdrun.plan.waves import requested, waves
from kdrun.signals import StopFlag


@task
def main(cfg: DictConfig, run: RunRecord) -> None:
    """Train or find the baseline of every seed, and show its row."""
    if not cfg.transfer.labels:
        raise ValueError("transfer.labels=false: a baseline learns from labels alone; type kdrun distill instead")
    train_alone("baseline", cfg, run)


def train_alone(role: str, cfg: DictConfig, run: RunRecord) -> None:
    """Train or find the networks of a verb that compares nothing, and show their rows."""
    stop = StopFlag()
    obtainer = new_obtainer(run.invocation, cfg, run.folder, stop)
    with console.busy("reading the data"):
        verb, record = f"train_{role}", run.record
        builder = RequestBuilder.read(verb, cfg, record["choices"], obtainer.device, record["config"])
        (entries,) = waves(builder, obtainer.store)
    requests = requested(entries)
    run.record["formula"] = check.formula(requests[0])
    with console.busy("checking the network"):
        check.check(entries, obtainer.device)
    if cfg.plan:
        run.planned = check.show(requests, obtainer, cfg.plan)
        return
    run.want(entry.spec.fingerprint for entry in entries)
    with stop:
        run.use(role, *obtainer.obtain(requests))
    show_comparison(run)
