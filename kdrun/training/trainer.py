"""Trains one cohort on this device: prepared from its requests, resumed where it has checkpoints, then committed."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from kdrun import losses
from kdrun.data.batches import Batches, counted
from kdrun.data.sets import ImageSet
from kdrun.records import ResultJson
from kdrun.spec import canonical
from kdrun.store import Artifact, Store, write_atomic
from kdrun.tracking.base import Tracking, Training
from kdrun.training import checkpoint, distributed, jobs
from kdrun.training.cohort import Course, train
from kdrun.training.compiled import compile_forward, explained
from kdrun.training.finish import Finisher
from kdrun.training.jobs import Job
from kdrun.training.learner import Diverged, Learner
from kdrun.training.networks import build_model, is_batch_norm, load_model, on_device
from kdrun.training.progress import Bar, NoBar
from kdrun.training.request import Request, together
from kdrun.training.stop import StopFlag
from kdrun.training.teaching import MOST_FORMS, Table, refused
from kdrun.training.unit import Unit, new_unit

log = logging.getLogger(__name__)


class Trainer:
    """One process's hands, or with several ranks the first's or a follower's: what a cohort's training needs."""

    def __init__(
        self,
        store: Store,
        device: torch.device,
        *,
        command: str,
        stop: StopFlag,
        workers: int = 0,
        remember: bool = True,
        tracking: Tracking | None = None,
    ) -> None:
        self.store, self.device, self.stop, self.workers = store, device, stop, workers
        self.ranks = distributed.current()
        self.finisher = Finisher(device, stop, command=command, workers=workers, ranks=self.ranks)
        self.told_of_norms = False
        self.remember, self.tables = remember, dict[str, Table]()
        self.told: set[str | None] = set()
        self.tracking = tracking or Tracking()
        if self.ranks.count > 1 and device.type == "cuda":
            torch.cuda.set_device(device)  # where the processes' messages go

    def train(self, requests: Sequence[Request], title: str) -> list[Artifact]:
        """Train one cohort, resuming whatever has checkpoints, and commit each learner on its own.

        The bar shows the title. A diverged learner gives an artifact that says so; other errors go up.
        """
        with contextlib.closing(self.tracking):
            return self._train(requests, title)

    def _train(self, requests: Sequence[Request], title: str) -> list[Artifact]:
        first = requests[0]
        spec, images = first.spec, first.sets.train
        if self.ranks.count > 1:
            jobs.send(self.ranks, Job(requests, self.device.type == "cuda", self.workers))
        with self.ranks.together():
            batches, teachers, units = self._prepared(requests)
        self._tell_split(spec.recipe["batch_size"], units)
        learners = {
            learner: request
            for unit, group in units.items()
            for learner, request in zip(unit.learners, group, strict=True)
        }
        ready: dict[Learner, Artifact] = {}
        tracked = {learner: self._tracked(request, learner) for learner, request in learners.items()}

        def commit(learner: Learner, made: tuple[dict[str, bytes], ResultJson]) -> None:
            ready[learner] = self._commit(learners[learner], made)
            self.tracking.end(tracked[learner], learner.progress.history, ready[learner].result)

        def diverged(learner: Learner, reason: str) -> None:
            log.warning("%s", reason)
            commit(learner, self.finisher.diverged(learners[learner], learner, reason))

        def save(unit: Unit) -> None:
            epoch, batch = unit.position
            state = {"torch": str(torch.__version__), **unit.state()}
            checkpoint.save(self._checkpoints(units[unit]), epoch * (len(batches) + 1) + batch, state)
            for learner in unit.learners if batch == 0 else ():  # else a signal came: no time for trackers
                self.tracking.epochs(tracked[learner], learner.progress.history)

        lines = {request.label: request.name or f"{request.role} {request.model}" for request in requests}
        epochs = max(r.spec.recipe["epochs"] for r in requests)
        epoch, batch = min(unit.position for unit in units)
        seen = epoch * len(images) + batch * spec.recipe["batch_size"]
        shown = Bar(f"{title}, seed {spec.seed}", lines, epochs=epochs, images=len(images), start=seen)
        with shown as bar, explained(spec.compiled), self.ranks.together():
            train(
                list(units),
                teachers,
                self._course(first, batches, self._tables(requests, batches)),
                stop=self.ranks.agreed(self.stop),
                bar=bar,
                save=save,
                diverged=diverged,
            )
        for unit in units:
            for learner in reversed(unit.learners):  # peers' checkpoint lies with the first, so that goes last
                if learner not in ready:
                    try:
                        commit(learner, self.finisher.finished(learners[learner], learner))
                    except Diverged as error:
                        diverged(learner, str(error))
        return list(ready.values())

    def assist(self, requests: Sequence[Request]) -> None:
        """Take part in a training of rank 0's as another process: the same steps, and nothing is said or written."""
        with self.ranks.together():
            batches, teachers, units = self._prepared(requests)
            train(
                list(units),
                teachers,
                self._course(requests[0], batches),
                stop=self.ranks.agreed(self.stop),
                bar=NoBar(),
                save=lambda unit: None,
                diverged=lambda learner, reason: None,
            )

    def _prepared(self, requests: Sequence[Request]) -> tuple[Batches, list[nn.Module], dict[Unit, list[Request]]]:
        """Make what trains a cohort, as far as it has come, in every process: its batches, teachers and units."""
        spec, images = requests[0].spec, requests[0].sets.train
        taught_by = next((r.spec.teachers for r in requests if r.spec.teachers), ())
        teachers = self.teachers(taught_by, compiled=spec.compiled)
        batches = Batches(
            images,
            batch_size=spec.recipe["batch_size"],
            seed=spec.seed,
            crop_padding=spec.data["crop_padding"],
            flip=spec.data["flip"],
            mean=spec.data["mean"],
            std=spec.data["std"],
            device=self.device,
            workers=self.workers,
            rank=self.ranks.rank,
            ranks=self.ranks.count,
        )
        return batches, teachers, {self._unit(group, teachers, len(batches)): group for group in together(requests)}

    def _tables(self, requests: Sequence[Request], batches: Batches) -> list[Table]:
        """Return a table per teacher, where what it says is worth remembering; say so, or why not.

        They stay for the command: another seed, and another cell of a sweep, reads what this one writes.
        """
        taught = [r for r in requests if r.spec.teachers]
        if not (self.remember and taught):
            return []
        spec, count = taught[0].spec, len(taught[0].spec.teachers)
        if not all(losses.build(r.spec.objective).logits_only for r in taught):
            why: str | None = "a loss compares more than logits"
        elif max(r.spec.recipe["epochs"] for r in taught) <= batches.form_count <= MOST_FORMS:
            why = "the training is too short"
        else:
            why = refused(batches, len(requests[0].sets.classes), count, self.device)
        if why not in self.told:
            self.told.add(why)
            forms = f"{batches.form_count} form{'s'[: batches.form_count != 1]} of {len(batches.images):,} images"
            log.info("the teacher's logits are %s", f"not remembered: {why}" if why else f"remembered: {forms}")
        if why:
            return []
        keys = [canonical([fingerprint, spec.data, spec.precision, spec.compiled]) for fingerprint in spec.teachers]
        return [self.tables.setdefault(key, Table()) for key in keys]

    def _course(self, request: Request, batches: Batches, tables: Sequence[Table] = ()) -> Course:
        """Say what is measured after every epoch: validation; under the papers' protocol test as well."""
        spec, sets = request.spec, request.sets
        val = sets.val.to(self.device) if isinstance(sets.val, ImageSet) else sets.val
        test = sets.test.to(self.device) if isinstance(sets.test, ImageSet) else sets.test
        paper = spec.recipe["protocol"] == "paper"
        return Course(
            batches,
            (lambda model: self.finisher.measure(model, val, spec, ranks=self.ranks)) if val is not None else None,
            (lambda model: self.finisher.measure(model, test, spec, ranks=self.ranks)) if paper else None,
            len(sets.train),
            self.ranks,
            tables,
        )

    def _unit(self, group: Sequence[Request], teachers: Sequence[nn.Module], steps: int) -> Unit:
        """Make learners from their specs alone, and restore the newest checkpoint where there is one."""
        unit = new_unit(group, teachers, steps, self.device, self.ranks)
        state = None
        if self.ranks.leads:
            for request in group:
                write_atomic(self._folder(request) / "spec.json", request.spec.json().encode())
            state = checkpoint.load(self._checkpoints(group))
        if (state := self.ranks.told(state)) is not None:
            label = group[0].label
            if state["torch"] != torch.__version__:
                log.warning("%s: was begun by torch %s; the rest may differ in the last bits", label, state["torch"])
            unit.restore(state)
            log.info("%s: resuming after epoch %d, batch %d", label, *unit.position)
        return unit

    def teachers(self, fingerprints: Sequence[str], *, compiled: bool = False) -> list[nn.Module]:
        """Load the cohort's teachers from the store, frozen and in eval mode; `compiled` compiles their calls."""
        found = self.ranks.told([self.store.find(fingerprint) for fingerprint in fingerprints if self.ranks.leads])
        assert all(a is not None and a.finished for a in found), "obtain the teachers before what learns from them"
        made = [self._taught(artifact).requires_grad_(False).eval() for artifact in found if artifact is not None]
        for teacher in made if compiled else ():
            compile_forward(teacher)
        return made

    def _taught(self, artifact: Artifact) -> nn.Module:
        """Return an artifact's trained network; other processes than the first take its weights from there."""
        made = load_model(artifact) if self.ranks.leads else build_model(artifact.spec, blank=True)
        network = on_device(made, self.device)
        self.ranks.align(*network.parameters(), *network.buffers())
        return network

    def _tell_split(self, batch_size: int, units: Iterable[Unit]) -> None:
        """Say how batches are split over several processes."""
        if self.ranks.count == 1:
            return
        count = self.ranks.count
        sizes = " + ".join(map(str, counted(batch_size, count)))
        log.info("%d processes train together: each batch of %d images is split %s", count, batch_size, sizes)
        modules = (module for unit in units for learner in unit.learners for module in learner.model.modules())
        if self.device.type == "cpu" and not self.told_of_norms and any(map(is_batch_norm, modules)):
            self.told_of_norms = True
            log.warning(
                "BatchNorm: on a CPU each process takes the statistics of its own share of a batch (on GPUs they are "
                "those of the whole), so that results depend on the number of processes"
            )

    def adopt(self, request: Request) -> Artifact:
        """Measure and commit weights that a user's file holds; nothing is trained."""
        return self.store.commit(self._folder(request), *self.finisher.adopted(request))

    def _tracked(self, request: Request, learner: Learner) -> Training:
        """Describe a training to those that follow it."""
        return Training(
            request.label,
            request.role,
            request.dataset,
            request.model,
            request.spec,
            learner.objective.formula(),
            self._folder(request).name,
            began=time.time(),
            resumed=learner.position > (0, 0),
            notes=request.notes,
        )

    def _commit(self, request: Request, made: tuple[dict[str, bytes], ResultJson]) -> Artifact:
        """Commit what a training made; a peer that was there already, trained once more for another's sake, stays."""
        return self.store.find(request.spec.fingerprint) or self.store.commit(self._folder(request), *made)

    def _checkpoints(self, group: Sequence[Request]) -> Path:
        return self._folder(group[0]) / "checkpoint"

    def _folder(self, request: Request) -> Path:
        return self.store.folder(request.role, request.dataset, request.model, request.spec)
