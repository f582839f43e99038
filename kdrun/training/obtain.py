"""`obtain`: the only way to a trained network. Finds what the store has, trains the rest, says which and why."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from kdrun import losses
from kdrun.data.batches import Batches
from kdrun.data.sets import ImageSet
from kdrun.store import Artifact, RunFailed, Store, begun, write_atomic
from kdrun.training import checkpoint, devices
from kdrun.training.cohort import Course, train
from kdrun.training.finish import Finisher
from kdrun.training.learner import Diverged, Learner
from kdrun.training.networks import build_model, load_model, on_device, sample_outputs
from kdrun.training.progress import Bar
from kdrun.training.request import Request
from kdrun.training.stop import StopFlag

log = logging.getLogger(__name__)
STARTED = time.time()  # force=true trains anew what was begun before; once for all cells of a sweep


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
        self.wanted, self.made = 0, 0  # trainings that this command has to do, and those it has done

    def expect(self, requests: Sequence[Request]) -> None:
        """Count what is missing of all that this command will ask for, so that a bar can say which it shows."""
        self.wanted = len({r.spec.fingerprint for r in requests if self._in_store(r) is None})

    def obtain(self, requests: Sequence[Request]) -> list[Artifact]:
        """Give the artifacts of all requests, in order; train the missing ones, each by one process.

        Those that share batches and teacher train as one cohort. Raises RunFailed where a training cannot
        be finished and Interrupted where a signal came; a diverged training is an artifact that says so.
        """
        ready: dict[str, Artifact] = {}
        missing: list[Request] = []
        unique = {r.spec.fingerprint: r for r in reversed(requests)}  # with alpha=0 a student is found as the baseline
        for request in reversed(unique.values()):
            if (found := self._in_store(request)) is not None:
                self._tell_found(request, found)
                ready[found.fingerprint] = found
            else:
                missing.append(request)
        self.wanted = max(self.wanted, self.made + len(missing))
        for cohort in cohorts(missing):
            for artifact in self._obtain_cohort(cohort):
                ready[artifact.fingerprint] = artifact
            self.made += len(cohort)
        return [ready[request.spec.fingerprint] for request in requests]

    def _obtain_cohort(self, cohort: Sequence[Request]) -> list[Artifact]:
        """Train a cohort under its locks; what another process finished while we waited is taken from it."""
        ready, rest = [], []
        with contextlib.ExitStack() as locks:
            for request in sorted(cohort, key=lambda r: r.spec.fingerprint):  # in one order, or two could block
                locks.enter_context(self.store.locked(request.spec.fingerprint, self._waiting(request)))
            for request in cohort:
                if self.force:
                    self.store.discard(request.spec.fingerprint, before=STARTED)
                if (found := self.store.find(request.spec.fingerprint)) is not None:
                    self._tell_found(request, found, ", trained by another process")
                    ready.append(found)
                elif request.adopted:
                    log.info("%s: taking the weights of %s", request.label, request.weights)
                    ready.append(self.store.commit(self._folder(request), *self.finisher.adopted(request)))
                else:
                    self._tell_training(request)
                    rest.append(request)
            if rest:
                ready += self._train_together(rest)
        return ready

    def _in_store(self, request: Request) -> Artifact | None:
        found = self.store.find(request.spec.fingerprint)
        return None if found is not None and self.force and begun(found.folder) < STARTED else found

    def _tell_found(self, request: Request, found: Artifact, whence: str = "") -> None:
        made, here = found.result, devices.describe(self.device)
        torch_then = made["versions"]["torch"]
        elsewhere = [f"by torch {torch_then}"] if torch_then != torch.__version__ else []
        elsewhere += [f"on {made['device']}"] if made["device"] != here else []
        elsewhere += [f"with {made['threads']} threads"] if made["threads"] != torch.get_num_threads() else []
        note = f", made {' '.join(elsewhere)}" if elsewhere else ""
        state = "" if found.finished else f" ({made['status']}: {made['reason']}; force=true trains it anew)"
        log.info("%s: found %s%s%s%s", request.label, found.fingerprint, whence, note, state)

    def _tell_training(self, request: Request) -> None:
        near = self.store.nearest(request.role, request.dataset, request.model, request.spec)
        keys = "" if near is None else ", ".join(near[1][:4] + (["…"] if len(near[1]) > 4 else []))
        why = f"; differs from {near[0]} in {keys}" if near is not None else ""
        log.info("%s: training %s%s", request.label, request.spec.fingerprint, why)

    def _waiting(self, request: Request) -> Callable[[], None]:
        told = False

        def waiting() -> None:
            nonlocal told
            if not told:
                log.info("%s: another process is training %s; waiting", request.label, request.spec.fingerprint)
                told = True
            self.stop.check()

        return waiting

    def _train_together(self, requests: Sequence[Request]) -> list[Artifact]:
        """Train a cohort; one that does not fit into memory is trained one at a time, from its checkpoints.

        Raises RunFailed where one training alone does not fit.
        """
        try:
            return self._train(requests)
        except torch.OutOfMemoryError:
            peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
        gc.collect()  # the learners, which the error's frames kept alive
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        size = f"recipe.batch_size={requests[0].spec.recipe['batch_size']}"
        used = f" (peak {peak / 1e9:.1f} GB)" if peak else ""
        if len(requests) == 1:
            raise RunFailed(
                f"{requests[0].label}: out of memory with {size}{used}; type a smaller batch size, or another device"
            )
        log.warning("%s trainings do not fit into memory together with %s%s: one at a time", len(requests), size, used)
        done = [self.store.find(r.spec.fingerprint) for r in requests]
        return [a or self._train_together([r])[0] for r, a in zip(requests, done, strict=True)]

    def _train(self, requests: Sequence[Request]) -> list[Artifact]:
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
            state = {"torch": str(torch.__version__), **learner.state()}
            checkpoint.save(folder, epoch * (len(batches) + 1) + batch, state)

        lines = {request.label: f"{request.role} {request.model}" for request in requests}
        epochs = max(r.spec.recipe["epochs"] for r in requests)
        epoch, batch = min(learner.position for learner in learners)
        seen = epoch * len(images) + batch * spec.recipe["batch_size"]
        title = f"{self._place(len(requests))}, seed {spec.seed}"
        with Bar(title, lines, epochs=epochs, images=len(images), start=seen) as bar:
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
                try:
                    made = self.finisher.finished(request, learner)
                except Diverged as error:
                    diverged(learner, str(error))
                else:
                    ready[learner] = self.store.commit(self._folder(request), *made)
        return list(ready.values())

    def _place(self, count: int) -> str:
        """Say which trainings of how many are under way."""
        first, last = self.made + 1, self.made + count
        return f"training {first if first == last else f'{first}–{last}'} of {self.wanted}"

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
            request.label,
            model,
            objective,
            spec.recipe,
            steps_per_epoch=steps,
            seed=spec.seed,
            precision=spec.precision,
            device=self.device,
        )
        folder = self._folder(request)
        write_atomic(folder / "spec.json", spec.json().encode())
        if (state := checkpoint.load(folder / "checkpoint")) is not None:
            if state["torch"] != torch.__version__:
                log.warning(
                    "%s: was begun by torch %s; the rest may differ in the last bits", request.label, state["torch"]
                )
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
        groups.setdefault(_shared(request), []).append(request)
    grouped = []
    for group in groups.values():
        teachers = list(dict.fromkeys(r.spec.teachers for r in group if r.spec.teachers)) or [()]
        for i, teacher in enumerate(teachers):  # what has no teacher goes with the first teacher's students
            mates = [r for r in group if r.spec.teachers == teacher or (not r.spec.teachers and i == 0)]
            grouped.append(mates)
    return grouped


def _shared(request: Request) -> str:
    """Give what the members of a cohort have in common; a teacher trains by itself."""
    spec, recipe = request.spec, request.spec.recipe
    shared = [spec.data, spec.seed, spec.precision, recipe.get("batch_size"), recipe.get("protocol")]
    return json.dumps([request.role == "teacher", *shared], sort_keys=True)
