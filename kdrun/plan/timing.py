"""An estimate of how long trainings take: a few timed steps of each kind, on copies that are thrown away."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from kdrun import augment, losses
from kdrun.console import busy
from kdrun.data.batches import Batch, Batches
from kdrun.spec import Spec, canonical
from kdrun.training.cohort import Unit, new_unit
from kdrun.training.learner import Learner
from kdrun.training.measure import measure_images
from kdrun.training.networks import build_model, on_device
from kdrun.training.obtain import Obtainer
from kdrun.training.pace import kind
from kdrun.training.request import Request, cohorts, group_peers
from kdrun.training.settings import Settings
from kdrun.training.table import Place, Table, expected_share
from kdrun.training.teaching import Teaching

WARM_STEPS = 3  # not timed: the first ones allocate memory
TIMED_STEPS = 20
LONGEST_SECONDS = 2.0  # limit for the timed steps of one kind
MEASURED_IMAGES = 256


@dataclass(frozen=True)
class Timed:
    """Seconds of the parts of a training of one kind."""

    load: float  # loading a batch
    teach: float  # the teachers' forward pass on a batch
    step: float  # a step of one learner
    measure: float  # the forward pass of one image
    forms: int | None  # number of forms of an image, if logits computed before are looked up


# by kind, device and threads; cells of a sweep share most kinds
_timed: dict[str, Timed] = {}


def seconds(requests: Sequence[Request], missing: Sequence[Request], obtainer: Obtainer) -> dict[str, float]:
    """Return, by fingerprint, the estimated seconds of the missing trainings.

    `requests` also has trainings that are not missing, for the specs of teachers. The time that members of a cohort
    share is divided among them. Timing leaves no files, and restores all random states.
    """
    specs = {request.spec.fingerprint: request.spec for request in requests}
    estimated: dict[str, float] = {}
    trained = [request for request in missing if not request.adopted]
    with _as_before(obtainer.device):
        for members in cohorts(trained):
            for group in group_peers(members):
                timed = _of_kind(group, specs, obtainer)
                for request in group:
                    estimated[request.spec.fingerprint] = _total(request, timed, len(members))
    return estimated


def _total(request: Request, timed: Timed, members: int) -> float:
    """Return the seconds of a whole training, including its measurements, in a cohort of `members` trainings."""
    sets, recipe = request.sets, request.spec.recipe
    steps, epochs = -(-len(sets.train) // recipe["batch_size"]), recipe["epochs"]
    each = [s for s in (sets.val, sets.test if recipe["protocol"] == "paper" else None) if s is not None]
    last = [s for s in (sets.train, sets.val, sets.test) if s is not None]  # measured at the selected and last epoch
    computed = 1.0 if timed.forms is None else expected_share(timed.forms, epochs)
    if request.strong is not None:  # the strong view is half of the teachers' time, and tables do not have it
        computed = (1 + computed) / 2
    shared = epochs * (timed.load + timed.teach * computed)
    measured = epochs * sum(map(len, each)) + 2 * sum(map(len, last))
    return float(steps * (timed.step * epochs + shared / members) + measured * timed.measure)


def _of_kind(group: Sequence[Request], specs: Mapping[str, Spec], obtainer: Obtainer) -> Timed:
    """Return timings of some steps of peers or of a single training, from the cache if this kind was timed before."""
    first = group[0]
    data = {key: first.spec.data.get(key) for key in ("crop_padding", "flip", "augment")}
    known = [kind(r) for r in group]
    key = canonical([known, data, first.strong, len(first.sets.train), str(obtainer.device), torch.get_num_threads()])
    if key not in _timed:
        with busy(f"timing some steps of {first.network}"):
            _timed[key] = _time(group, specs, obtainer.settings)
    return _timed[key]


def _time(group: Sequence[Request], specs: Mapping[str, Spec], how: Settings) -> Timed:
    group = [replace(r, spec=replace(r.spec, compiled=False)) for r in group]  # compiling would take minutes
    spec, sets, device, strong = group[0].spec, group[0].sets, how.device, group[0].strong
    teachers = [_blank(specs.get(f) or _stored(f, how), device) for f in spec.teachers]
    batches = Batches(
        sets.train,
        batch_size=spec.recipe["batch_size"],
        seed=spec.seed,
        augmentation=augment.of_spec(spec.data, sets.train.image_size),
        strong=augment.strong_of_spec(spec.data, strong, sets.train.image_size),
        mean=spec.data["mean"],
        std=spec.data["std"],
        device=device,
        workers=replace(how.workers, waiting=how.stop.check),
    )
    unit = new_unit(group, teachers, len(batches), device)
    absent = None in teachers  # a teacher given as answers; zeros in their place take the same time
    answered = torch.zeros(len(batches.images), spec.model["num_classes"], device=device)
    tables = [Table.whole(answered, Place(device)) for _ in teachers if absent]
    teaching = Teaching(teachers, batches, precision=spec.precision, device=device, tables=tables)
    teaching.begin(0, 0)
    spent = {"load": 0.0, "teach": 0.0, "step": 0.0}
    count = 0
    for number, batch in enumerate(_batches(batches, spent)):
        if number == WARM_STEPS:
            spent.update(dict.fromkeys(spent, 0.0))
        with _adding(spent, "teach", device):
            outputs = []
            if teachers:
                outputs = teaching.teacher_outputs(
                    batch, number % len(batches), logits_only=absent, strong=strong is not None
                )
        with _adding(spent, "step", device):
            _step(unit, batch, outputs)
        count = number + 1 - WARM_STEPS
        how.stop.check()
        if count >= TIMED_STEPS or (count > 0 and sum(spent.values()) > LONGEST_SECONDS):
            break
    logits_only = all(losses.build(r.spec.objective).logits_only for r in group)
    return Timed(
        spent["load"] / count,
        spent["teach"] / count,
        spent["step"] / count / len(group),
        _measuring(unit.learners[0], group[0], how),
        batches.augmentation.form_count if logits_only and how.cache_logits and not absent else None,
    )


def _batches(batches: Batches, spent: dict[str, float]) -> Iterator[Batch]:
    """Yield the batches of one epoch after another, and add the time of loading them to `spent`."""
    for epoch in range(10**6):
        epoch_batches = batches.epoch(epoch, 0)
        while True:
            with _adding(spent, "load", torch.device("cpu")):
                batch = next(epoch_batches, None)
            if batch is None:
                break
            yield batch


def _step(unit: Unit, batch: Batch, outputs: Sequence[Any]) -> None:
    """Take a step as if it were the first of its epoch, so that an epoch never ends."""
    for learner in unit.learners:
        learner.progress.batch = 0
    unit.step(batch, outputs)


def _measuring(learner: Learner, request: Request, how: Settings) -> float:
    """Return the seconds of measuring one image."""
    images = request.sets.test
    images = images.subset(torch.arange(min(len(images), MEASURED_IMAGES)))
    spent = {"measure": 0.0}
    for _ in range(2):  # the first allocates memory
        spent["measure"] = 0.0
        with _adding(spent, "measure", how.device):
            measure_images(learner.evaluated, images, request.spec, how.device, how.stop, workers=how.workers)
    return spent["measure"] / len(images)


def _blank(spec: Spec, device: torch.device) -> nn.Module | None:
    """Return a teacher with arbitrary weights, which do not affect timing; None for another model's answers."""
    if spec.answered:
        return None
    return on_device(build_model(spec, seed=0), device).requires_grad_(False).eval()


def _stored(fingerprint: str, how: Settings) -> Spec:
    artifact = how.store.find(fingerprint)
    assert artifact is not None, "a teacher is planned, or it is in the store"
    return artifact.spec


@contextmanager
def _adding(spent: dict[str, float], part: str, device: torch.device) -> Iterator[None]:
    """Add the time spent inside the context to a part, including pending work on a GPU."""
    began = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    spent[part] += time.perf_counter() - began


@contextmanager
def _as_before(device: torch.device) -> Iterator[None]:
    """Restore every global random state at the end."""
    own, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numpy)
