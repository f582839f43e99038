"""kdrun distill: train teachers, baselines and students, and compare them."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from kdrun import config, console
from kdrun.artifact import Artifact
from kdrun.files import RunFailed
from kdrun.lifecycle.ending import check_examples, show_comparison
from kdrun.lifecycle.measurements import measure_robustness
from kdrun.lifecycle.task import RunRecord, task
from kdrun.plan import check
from kdrun.plan.objective import plain
from kdrun.plan.requests import RequestBuilder, new_obtainer
from kdrun.plan.trust import refuse_chance
from kdrun.plan.waves import Entry, requested, teachable, waves
from kdrun.signals import StopFlag
from kdrun.training.obtain import Obtainer

log = logging.getLogger(__name__)


@task
def main(cfg: DictConfig, run: RunRecord) -> None:
    """Train what is missing, compare, and print where everything is."""
    stop = StopFlag()
    obtainer = new_obtainer(run.invocation, cfg, run.folder, stop)
    with console.busy("reading the data"):
        builder = RequestBuilder.read("distill", cfg, run.record["choices"], obtainer.device, run.record["config"])
        lineup = waves(builder, obtainer.store)
    entries = [entry for wave in lineup for entry in wave]
    requests = requested(entries)

    run.record["formula"] = check.formula(requests[-1])
    run.record["ensemble"] = {"teachers": [float(t.weight) for t in cfg.teachers.values()]}
    log.info("%s minimises %s", entries[-1].label or entries[-1].role, run.record["formula"])
    with console.busy("checking networks and losses"):
        check.check(entries, obtainer.device)
    with console.busy("measuring the teacher"):
        refuse_chance(entries, builder.dataset, obtainer.store, obtainer.device)
    check_examples(run, requests[-1].sets)
    if cfg.plan:
        run.planned = check.show(requests, obtainer, cfg.plan)
        return

    run.want(entry.spec.fingerprint for entry in entries)
    with stop:
        obtainer.expect(requests)
        for wave in lineup:
            for entry, artifact in _obtain(wave, obtainer):
                run.use(entry.role, artifact, label=entry.label, lane=entry.lane)
                if entry.role in ("teacher", "assistant") and not artifact.finished:
                    raise RunFailed(f"the {entry.name} {artifact.result['status']}: {artifact.result['reason']}")
        if cfg.robustness is not None:
            how = config.Robustness(**plain(cfg.robustness))
            # as in kdrun evaluate: a teacher that was trained on other data may have seen these images
            digest, images = requests[-1].spec.data["digest"], requests[-1].sets.test
            here = [a for _, a in run.artifacts if a.finished and not a.spec.answered]
            finished = [a for a in here if a.spec.data["digest"] == digest]
            measure_robustness(finished, images, digest, how, obtainer.device, config.Evaluate.batch_size, stop)
    show_comparison(run, requests[-1].sets)


def _obtain(wave: list[Entry], obtainer: Obtainer) -> list[tuple[Entry, Artifact]]:
    """Return a wave's artifacts; networks whose teacher diverged are skipped and logged."""
    ready = [entry for entry in wave if teachable(entry, obtainer.store)]
    trained = iter(obtainer.obtain(requested(ready)))
    for entry in ready:
        if entry.request is None:
            log.info("%s: using %s, as requested", entry.name, entry.spec.fingerprint)
    return [(entry, entry.training if isinstance(entry.training, Artifact) else next(trained)) for entry in ready]
