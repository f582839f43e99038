"""`obtain`: the only way to a trained network. Finds what the store has, trains the rest, says which and why."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from kdrun import losses
from kdrun.data.batches import Batches
from kdrun.data.sets import ImageSet
from kdrun.spec import Spec
from kdrun.store import Artifact, RunFailed, Store
from kdrun.training import checkpoint, devices
from kdrun.training.cohort import Course, StopFlag, train
from kdrun.training.finish import Finisher
from kdrun.training.learner import Learner
from kdrun.training.networks import build_model, load_model, on_device, sample_outputs
from kdrun.training.progress import Bar
from kdrun.training.request import Request

log = logging.getLogger(__name__)


class Workshop:
    """Where trainings happen: a store, a device, and what one command says while it works."""

    def __init__(
        self,
        store: Store,
        device: torch.device,
        *,
        command: str,
        stop: StopFlag,
        workers: int = 0,
        force: bool = False,
    ) -> None:
        self.store, self.device, self.stop, self.workers, self.force = store, device, stop, workers, force
        self.finisher = Finisher(device, stop, command=command, workers=workers)
        self._forced: set[str] = set()

    def obtain(self, requests: Sequence[Request]) -> list[Artifact]:
        """Give the artifacts of all requests, in order; train the missing ones, each by one process.

        Those that share batches and teacher train as one cohort. Raises RunFailed where a training cannot
        be finished and Interrupted where a signal came; a diverged training is an artifact that says so.
        """
        ready: dict[str, Artifact] = {}
        missing: list[Request] = []
        for request in {r.spec.fingerprint: r for r in requests}.values():
            if (found := self._found(request)) is not None:
                ready[found.fingerprint] = found
            else:
                missing.append(request)
        done = 0
        for cohort in cohorts(missing):
            place = f" [{done + 1}–{done + len(cohort)} of {len(missing)}]" if len(missing) > len(cohort) else ""
            done += len(cohort)
            for artifact in self._obtain_cohort(cohort, place):
                ready[artifact.fingerprint] = artifact
        return [ready[request.spec.fingerprint] for request in requests]

    def _obtain_cohort(self, cohort: Sequence[Request], place: str) -> list[Artifact]:
        """Train a cohort under its locks; what another process finished while we waited is taken from it."""
        ready, rest = [], []
        with contextlib.ExitStack() as locks:
            for request in sorted(cohort, key=lambda r: r.spec.fingerprint):  # in one order, or two could block
                locks.enter_context(self.store.locked(request.spec.fingerprint, self._waiting(request)))
            for request in cohort:
                if (found := self.store.find(request.spec.fingerprint)) is not None:
                    log.info("%s: found %s, trained by another process", request.label, found.fingerprint)
                    ready.append(found)
                else:
                    rest.append(request)
            for request in [r for r in rest if r.adopted]:
                log.info("%s: taking the weights of %s", request.label, request.weights)
                ready.append(self.store.commit(self._folder(request), *self.finisher.adopted(request)))
            if rest := [r for r in rest if not r.adopted]:
                ready += self._train(rest, place)
        return ready

    def _found(self, request: Request) -> Artifact | None:
        """Look in the store, and say what was found or why a training is needed."""
        fingerprint = request.spec.fingerprint
        if self.force and fingerprint not in self._forced:
            self._forced.add(fingerprint)
            self.store.discard(fingerprint)
        found = self.store.find(fingerprint)
        if found is None:
            near = self.store.nearest(request.role, request.dataset, request.model, request.spec)
            keys = "" if near is None else ", ".join(near[1][:4] + (["…"] if len(near[1]) > 4 else []))
            log.info(
                "%s: training %s%s",
                request.label,
                fingerprint,
                f"; differs from {near[0]} in {keys}" if near is not None else "",
            )
            return None
        made, here = found.result, devices.describe(self.device)
        torch_then = made["versions"]["torch"]
        elsewhere = [f"by torch {torch_then}"] if torch_then != torch.__version__ else []
        elsewhere += [f"on {made['device']}"] if made["device"] != here else []
        note = f", made {' '.join(elsewhere)}" if elsewhere else ""
        state = "" if found.finished else f" ({made['status']}: {made['reason']}; force=true trains it anew)"
        log.info("%s: found %s%s%s", request.label, fingerprint, note, state)
        return found

    def _waiting(self, request: Request) -> Callable[[], None]:
        told = False

        def waiting() -> None:
            nonlocal told
            if not told:
                log.info("%s: another process is training %s; waiting", request.label, request.spec.fingerprint)
                told = True
            self.stop.check()

        return waiting

    def _train(self, requests: Sequence[Request], place: str) -> list[Artifact]:
        """Train one cohort, resuming whatever has checkpoints, and commit each learner on its own."""
        first = requests[0]
        spec, images = first.spec, first.sets.train
        teacher = self._teacher(next((r.spec.teachers for r in requests if r.spec.teachers), ()))
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
        )
        learners = {self._learner(request, teacher, len(batches)): request for request in requests}
        ready: dict[Learner, Artifact] = {}

        def diverged(learner: Learner, reason: str) -> None:
            log.warning("%s", reason)
            request = learners[learner]
            made = self.finisher.diverged(request, learner, reason)
            ready[learner] = self.store.commit(self._folder(request), *made)

        def save(learner: Learner) -> None:
            epoch, batch = learner.position
            folder = self._folder(learners[learner]) / "checkpoint"
            checkpoint.save(folder, epoch * (len(batches) + 1) + batch, learner.state())

        label = " + ".join(dict.fromkeys(r.role for r in requests)) + f" {first.model} seed {spec.seed}{place}"
        epochs = max(r.spec.recipe["epochs"] for r in requests)
        epoch, batch = min(learner.position for learner in learners)
        seen = epoch * len(images) + batch * spec.recipe["batch_size"]
        try:
            with Bar(label, epochs=epochs, images=len(images), start=seen) as bar:
                train(
                    list(learners),
                    teacher,
                    self._course(first, batches),
                    stop=self.stop,
                    bar=bar,
                    save=save,
                    diverged=diverged,
                )
            for learner, request in learners.items():
                if learner not in ready:
                    made = self.finisher.finished(request, learner)
                    ready[learner] = self.store.commit(self._folder(request), *made)
        except torch.OutOfMemoryError as error:
            peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
            raise RunFailed(
                f"{label}: out of memory with recipe.batch_size={spec.recipe['batch_size']}"
                + (f" (peak {peak / 1e9:.1f} GB)" if peak else "")
                + "; type a smaller batch size, or another device"
            ) from error
        return list(ready.values())

    def _course(self, request: Request, batches: Batches) -> Course:
        """Say what is measured after every epoch: validation; under the papers' protocol test as well."""
        spec, sets = request.spec, request.sets
        val = sets.val.to(self.device) if isinstance(sets.val, ImageSet) else sets.val
        test = sets.test.to(self.device) if isinstance(sets.test, ImageSet) else sets.test
        paper = spec.recipe["protocol"] == "paper"
        return Course(
            batches,
            (lambda model: self.finisher.measure(model, val, spec)) if val is not None else None,
            (lambda model: self.finisher.measure(model, test, spec)) if paper else None,
            len(sets.train),
        )

    def _learner(self, request: Request, teacher: nn.Module | None, steps: int) -> Learner:
        """Make a learner from its spec alone, and restore its newest checkpoint where it has one."""
        spec = request.spec
        model = on_device(build_model(spec, seed=spec.seed, weights=request.weights), self.device)
        objective = losses.build(spec.objective)
        taught = sample_outputs(teacher, spec) if teacher is not None and objective.needs_teacher else None
        objective.prepare(sample_outputs(model, spec), taught, len(request.sets.train), seed=spec.seed)
        learner = Learner(
            request.role,
            model,
            objective,
            spec.recipe,
            steps_per_epoch=steps,
            seed=spec.seed,
            precision=spec.precision,
            device=self.device,
        )
        folder = self._folder(request)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(spec.json())
        if (state := checkpoint.load(folder / "checkpoint")) is not None:
            learner.restore(state)
            log.info("%s: resuming after epoch %d, batch %d", request.label, *learner.position)
        return learner

    def _teacher(self, fingerprints: Sequence[str]) -> nn.Module | None:
        """Load the cohort's teacher from the store, frozen and in eval mode."""
        if not fingerprints:
            return None
        (fingerprint,) = fingerprints
        artifact = self.store.find(fingerprint)
        assert artifact is not None and artifact.finished, "obtain the teacher before what learns from it"
        return on_device(load_model(artifact), self.device).requires_grad_(False).eval()

    def _folder(self, request: Request) -> Path:
        return self.store.folder(request.role, request.dataset, request.model, request.spec)


def cohorts(requests: Sequence[Request]) -> list[list[Request]]:
    """Group what shares batches and teacher: same images, order, augmentation, batch size and protocol."""
    groups: dict[str, list[Request]] = {}
    for request in requests:
        spec = request.spec
        groups.setdefault(_shared(request.role == "teacher", spec), []).append(request)
    grouped = []
    for group in groups.values():
        teachers = list(dict.fromkeys(r.spec.teachers for r in group if r.spec.teachers)) or [()]
        for i, teacher in enumerate(teachers):  # what has no teacher goes with the first teacher's students
            mates = [r for r in group if r.spec.teachers == teacher or (not r.spec.teachers and i == 0)]
            grouped.append(mates)
    return grouped


def _shared(alone: bool, spec: Spec) -> str:
    recipe = spec.recipe
    shared = [alone, spec.data, spec.seed, spec.precision, recipe.get("batch_size"), recipe.get("protocol")]
    return json.dumps(shared, sort_keys=True)
