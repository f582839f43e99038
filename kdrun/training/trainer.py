"""Train a cohort on this device: prepare it from its requests, resume from checkpoints, and commit the artifacts."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from kdrun import augment, console
from kdrun.artifact import Artifact
from kdrun.data.batches import Batches, counted
from kdrun.files import RunFailed, write_atomic
from kdrun.records import ResultJson
from kdrun.tracking.base import Training
from kdrun.training import checkpoint, cohort, jobs
from kdrun.training.cohort import CohortContext, Unit, new_unit
from kdrun.training.compiled import compile_forward, report_compilation
from kdrun.training.finish import ArtifactBuilder, in_words
from kdrun.training.jobs import Job
from kdrun.training.learner import Diverged, Learner
from kdrun.training.networks import is_batch_norm, load_model, replicate
from kdrun.training.pace import Pace
from kdrun.training.progress import Bar
from kdrun.training.request import Request, group_peers
from kdrun.training.rounding import Rounding
from kdrun.training.settings import Settings
from kdrun.training.tables import Tables

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CohortMember:
    """A learner with its request, and the description of its training for trackers."""

    request: Request
    learner: Learner
    training: Training


class Trainer:
    """Trains cohorts in this process: alone, as rank 0, or as another rank that follows it."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.artifacts = settings, ArtifactBuilder(settings)
        self.store, self.device, self.ranks = settings.store, settings.device, settings.ranks
        self.warned_of_batch_norm = False
        self.pace = Pace()
        self.tables = Tables(settings, self.pace)
        if self.ranks.count > 1 and self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # the device of NCCL's collectives

    def train(self, requests: Sequence[Request], title: str) -> list[Artifact]:
        """Train one cohort, resume from checkpoints, and return the artifacts; each learner is committed on its own.

        The bar shows the title. A diverged learner is an artifact with that status; other errors are raised.
        """
        spec, images = requests[0].spec, requests[0].sets.train
        if self.ranks.count > 1:
            jobs.send(self.ranks, Job(requests, self.device.type == "cuda", self.settings.workers))
        with self.ranks.collective(), console.busy("preparing the training"):
            context, units = self._prepare(requests)
        self._log_split(spec.recipe["batch_size"], units)
        members = {
            learner: CohortMember(request, learner, self._training(request, learner))
            for unit, group in units.items()
            for learner, request in zip(unit.learners, group, strict=True)
        }
        lines = {request.label: request.network for request in requests}
        epochs = max(r.spec.recipe["epochs"] for r in requests)
        epoch, batch = min(unit.position for unit in units)
        seen = epoch * len(images) + batch * spec.recipe["batch_size"]
        ready: dict[Learner, Artifact] = {}

        def left() -> tuple[str, str]:
            running = [(m.request, _epochs_left(learner)) for learner, m in members.items() if learner not in ready]
            return self._left(running)

        self.pace.begin(requests)
        shown = Bar(f"{title}, seed {spec.seed}", lines, epochs=epochs, images=len(images), start=seen, left=left)
        began = time.monotonic()
        with shown as bar, self.tables.kept(), report_compilation(spec.compiled), self.ranks.collective():
            if not context.tables:
                context = replace(context, tables=self.tables.of(requests, context.batches))
            for event in cohort.train(list(units), context):
                match event:
                    case cohort.BatchTrained(count):
                        bar.step(count)
                    case cohort.EpochEnded(learner, row):
                        self.pace.measure(members[learner].request, row["seconds"])
                        self.pace.passed((now := time.monotonic()) - began)
                        began = now
                        bar.epoch(learner.name, row, learner.recipe["epochs"])
                        self.settings.tracking.epochs(members[learner].training, learner.progress.history)
                    case cohort.LearnerDiverged(learner, reason):
                        ready[learner] = self._commit_diverged(members[learner], reason)
                    case cohort.CheckpointDue(unit):
                        self._save(unit, units[unit], len(context.batches))
        for unit in units:
            for learner in reversed(unit.learners):  # the first one's folder has the peers' checkpoint: commit it last
                if learner not in ready:
                    ready[learner] = self._commit_finished(members[learner])
        return list(ready.values())

    def _save(self, unit: Unit, group: Sequence[Request], steps: int) -> None:
        """Write a unit's checkpoint, numbered by its global step; an epoch has `steps` batches."""
        for request in group:
            if not ((folder := self._folder(request)) / "spec.json").exists():
                log.warning("%s was removed while it was trained: it is created again", folder)
                self._write_spec(request)
        epoch, batch = unit.position
        state = {"torch": str(torch.__version__), **unit.state()}
        checkpoint.save(self._checkpoints(group), epoch * (steps + 1) + batch, state)

    def _write_spec(self, request: Request) -> None:
        """Write a training's spec into its folder, which is created if necessary."""
        write_atomic(self._folder(request) / "spec.json", request.spec.json().encode())

    def _commit_finished(self, member: CohortMember) -> Artifact:
        """Commit a training that reached its end, as diverged if its outputs are not finite."""
        try:
            with console.busy(f"measuring {member.request.label}"):
                made = self.artifacts.finished(member.request, member.learner)
            artifact = self._commit(member, made)
        except Diverged as error:
            return self._commit_diverged(member, str(error))
        self._log_end(member.request, artifact)
        return artifact

    def _log_end(self, request: Request, artifact: Artifact) -> None:
        """Log how a training ended; only in detail if it belongs to a cell of a sweep, whose line reports it."""
        level = console.DETAIL if request.in_cell else console.RESULT
        log.log(level, "%s: %s", request.label, in_words(artifact.result))

    def _left(self, running: Sequence[tuple[Request, int]]) -> tuple[str, str]:
        """Return in words the time left for these trainings and, if more follow, for the command; "" if unknown."""
        own = self.pace.left(running, waiting=False)
        total = self.pace.left(running) if self.pace.waiting else None
        rest = "" if total is None else f"all trainings: {console.seconds(total)} left"
        return "" if own is None else f"{console.seconds(own)} left", rest

    def _commit_diverged(self, member: CohortMember, reason: str) -> Artifact:
        """Warn, and commit a diverged training."""
        log.warning("%s", reason)
        return self._commit(member, self.artifacts.diverged(member.request, member.learner, reason))

    def _commit(self, member: CohortMember, made: tuple[dict[str, bytes], ResultJson]) -> Artifact:
        """Commit a training unless the store already has it, like a peer retrained only because others needed it."""
        request = member.request
        artifact = self.store.find(request.spec.fingerprint) or self.store.commit(self._folder(request), *made)
        self.settings.tracking.end(member.training, member.learner.progress.history, artifact.result)
        return artifact

    def assist(self, requests: Sequence[Request]) -> None:
        """Follow a training of rank 0 as another rank: take the same steps, write and log nothing."""
        with self.ranks.collective():
            context, units = self._prepare(requests)
            for _ in cohort.train(list(units), context):
                pass

    def _prepare(self, requests: Sequence[Request]) -> tuple[CohortContext, dict[Unit, list[Request]]]:
        """Return a cohort's context, and its units with their requests, restored from their checkpoints."""
        spec, sets, workers = requests[0].spec, requests[0].sets, self.settings.workers
        fingerprints = next((r.spec.teachers for r in requests if r.spec.teachers), ())
        strong = next((r.strong for r in requests if r.strong is not None), None)
        teachers = self.teachers(fingerprints, compiled=spec.compiled)
        batches = Batches(
            sets.train,
            batch_size=spec.recipe["batch_size"],
            seed=spec.seed,
            augmentation=augment.of_spec(spec.data, sets.train.image_size),
            strong=augment.strong_of_spec(spec.data, strong, sets.train.image_size),
            mean=spec.data["mean"],
            std=spec.data["std"],
            device=self.device,
            workers=workers if self.ranks.count > 1 else replace(workers, waiting=self.settings.stop.check),
            rank=self.ranks.rank,
            ranks=self.ranks.count,
        )
        measured = sets.val, sets.test if spec.recipe["protocol"] == "paper" else None
        val, test = (None if images is None else images.to(self.device) for images in measured)
        tables = self.tables.answered(fingerprints, spec, sets.train) if None in teachers else []
        rounding = Rounding.of_spec(next((r.spec.bank for r in requests if r.spec.teachers), {}))
        context = CohortContext(self.settings, spec, batches, teachers, tables, rounding=rounding, val=val, test=test)
        return context, {self._unit(group, teachers, len(batches)): group for group in group_peers(requests)}

    def _unit(self, group: Sequence[Request], teachers: Sequence[nn.Module | None], steps: int) -> Unit:
        """Return the learners of a group as one unit, restored from the newest checkpoint if there is one."""
        unit = new_unit(group, teachers, steps, self.device, self.ranks)
        state = None
        if self.ranks.leads:
            for request in group:
                self._write_spec(request)
            state = checkpoint.load(self._checkpoints(group))
        if (state := self.ranks.broadcast(state)) is not None:
            label = group[0].label
            if state["torch"] != torch.__version__:
                log.warning(
                    "%s: was started with torch %s; the rest may differ in the last bits", label, state["torch"]
                )
            unit.restore(state)
            log.info("%s: resuming after epoch %d, batch %d", label, *unit.position)
        return unit

    def teachers(self, fingerprints: Sequence[str], *, compiled: bool = False) -> list[nn.Module | None]:
        """Return the teachers from the store, frozen and in eval mode; None for another model's answers.

        `compiled` compiles their calls.
        """
        teachers: list[nn.Module | None] = []
        artifacts = self.ranks.broadcast([self.store.find(f) for f in fingerprints if self.ranks.leads])
        for fingerprint, artifact in zip(fingerprints, artifacts, strict=True):
            if artifact is None:
                raise RunFailed(
                    f"the teacher {fingerprint} was removed from {self.store.root} while this command ran; the same "
                    "command retrains it"
                )
            assert artifact.finished, "obtain the teachers before what learns from them"
            if artifact.spec.answered:
                teachers.append(None)
                continue
            network = load_model(artifact) if self.ranks.leads else None
            teacher = replicate(network, artifact.spec, self.device, self.ranks).requires_grad_(False).eval()
            if compiled:
                compile_forward(teacher)
            teachers.append(teacher)
        return teachers

    def _log_split(self, batch_size: int, units: Iterable[Unit]) -> None:
        """Log how batches are split over several ranks."""
        if self.ranks.count == 1:
            return
        count = self.ranks.count
        sizes = " + ".join(map(str, counted(batch_size, count)))
        log.info("%d processes train together: each batch of %d images is split %s", count, batch_size, sizes)
        modules = (module for unit in units for learner in unit.learners for module in learner.model.modules())
        if self.device.type == "cpu" and not self.warned_of_batch_norm and any(map(is_batch_norm, modules)):
            self.warned_of_batch_norm = True
            log.warning(
                "BatchNorm: on a CPU each process computes statistics over its own share of a batch (on GPUs "
                "over the whole batch), so results depend on the number of processes"
            )

    def adopt(self, request: Request) -> Artifact:
        """Measure and commit a user's file of weights or answers, without training."""
        with console.busy(f"measuring {request.label}"):
            made = self.artifacts.adopted(request)
        artifact = self.store.commit(self._folder(request), *made)
        self._log_end(request, artifact)
        return artifact

    def _training(self, request: Request, learner: Learner) -> Training:
        """Describe a training for trackers."""
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

    def _checkpoints(self, group: Sequence[Request]) -> Path:
        return self._folder(group[0]) / "checkpoint"

    def _folder(self, request: Request) -> Path:
        return self.store.folder(request.role, request.dataset, request.model, request.spec)


def _epochs_left(learner: Learner) -> int:
    return 0 if learner.done else int(learner.recipe["epochs"]) - learner.progress.epoch
