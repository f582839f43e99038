"""`obtain`: the only way to a trained network. Finds what the store has, trains the rest, says which and why."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdrun import console
from kdrun.data.batches import Batches
from kdrun.data.sets import ImageSet
from kdrun.store import Artifact, CannotWrite, RunFailed, Store, begun, write_atomic
from kdrun.training import checkpoint, devices, estimate
from kdrun.training.cohort import Course, train
from kdrun.training.finish import Finisher
from kdrun.training.learner import Diverged, Learner
from kdrun.training.networks import load_model, on_device
from kdrun.training.progress import Bar
from kdrun.training.request import Request, cohorts, together
from kdrun.training.stop import Interrupted, StopFlag
from kdrun.training.unit import Unit, new_unit

log = logging.getLogger(__name__)
ROOM = 0.8  # of the free memory that a cohort may plan to fill: an estimate knows no library's working space
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
        unique: dict[str, Request] = {}  # with alpha=0 a student is found as the baseline
        for request in requests:
            unique.setdefault(request.spec.fingerprint, request)
        for request in unique.values():
            if (found := self._in_store(request)) is not None:
                self._tell_found(request, found)
                ready[found.fingerprint] = found
            else:
                missing.append(request)
        groups = {request.group for request in missing if request.group}  # a peer alone cannot be trained
        missing += [r for r in unique.values() if r.group in groups and r.spec.fingerprint in ready]
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
            lacking = self._lacking(cohort)
            for request in cohort:
                if self.force:
                    self.store.discard(request.spec.fingerprint, before=STARTED)
                found = self.store.find(request.spec.fingerprint)
                if found is not None and request.group in lacking:
                    rest.append(request)  # for its peers' sake
                elif found is not None:
                    self._tell_found(request, found, ", trained by another process")
                    ready.append(found)
                elif request.adopted:
                    log.info("%s: taking the weights of %s", request.label, request.weights)
                    ready.append(self.store.commit(self._folder(request), *self.finisher.adopted(request)))
                else:
                    self._tell_training(request)
                    rest.append(request)
            for part in self._fitting(rest):
                ready += self._train_together(part)
        return ready

    def _fitting(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Split a cohort into parts that should fit into memory."""
        groups = together(requests)
        if len(groups) < 2:
            return [list(requests)] if requests else []
        room = int(ROOM * devices.free_memory(self.device))
        parts = estimate.parts(groups, room)
        if len(parts) > 1:
            sizes = (len(requests), self.device, console.size(room), len(parts))
            log.info("%d trainings would take more together than %s has free (%s): they are split in %d", *sizes)
        return parts

    def _lacking(self, cohort: Sequence[Request]) -> set[str]:
        """Give the groups of peers of which one is missing."""
        return {r.group for r in cohort if r.group and self.store.find(r.spec.fingerprint) is None}

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
        """Train a cohort; one that fails is trained one at a time, from its checkpoints, and the reason is logged.

        Raises RunFailed where one training alone does not fit into memory, and what a single training raises,
        once the others of its cohort are done.
        """
        groups = together(requests)
        try:
            return self._train(requests)
        except torch.OutOfMemoryError:
            peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
        except (Interrupted, RunFailed, ValueError):
            raise
        except Exception as error:
            if len(groups) == 1:
                raise
            what = f"{type(error).__name__}: {error}"
            log.warning("%s trainings failed together (%s): one at a time", len(requests), what)
            return self._one_at_a_time(groups)
        gc.collect()  # the learners, which the error's frames kept alive
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        size = f"recipe.batch_size={requests[0].spec.recipe['batch_size']}"
        used = f" (peak {peak / 1e9:.1f} GB)" if peak else ""
        if len(groups) == 1:
            raise RunFailed(
                f"{requests[0].label}: out of memory with {size}{used}; type a smaller batch size, or another device"
            )
        log.warning("%s trainings do not fit into memory together with %s%s: one at a time", len(requests), size, used)
        return self._one_at_a_time(groups)

    def _one_at_a_time(self, groups: Sequence[Sequence[Request]]) -> list[Artifact]:
        ready: list[Artifact] = []
        errors: list[Exception] = []
        for group in groups:
            done = [self.store.find(r.spec.fingerprint) for r in group]
            try:
                ready += [a for a in done if a] if all(done) else self._train_together(group)
            except (Interrupted, CannotWrite):
                raise
            except Exception as error:
                log.warning("%s: %s", group[0].label, error)
                errors.append(error)
        if errors:
            raise errors[0]
        return ready

    def _train(self, requests: Sequence[Request]) -> list[Artifact]:
        """Train one cohort, resuming whatever has checkpoints, and commit each learner on its own."""
        first = requests[0]
        spec, images = first.spec, first.sets.train
        teachers = self.teachers(next((r.spec.teachers for r in requests if r.spec.teachers), ()))
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
        units = {self._unit(group, teachers, len(batches)): group for group in together(requests)}
        learners = {
            learner: request
            for unit, group in units.items()
            for learner, request in zip(unit.learners, group, strict=True)
        }
        ready: dict[Learner, Artifact] = {}

        def diverged(learner: Learner, reason: str) -> None:
            log.warning("%s", reason)
            ready[learner] = self._commit(learners[learner], self.finisher.diverged(learners[learner], learner, reason))

        def save(unit: Unit) -> None:
            epoch, batch = unit.position
            state = {"torch": str(torch.__version__), **unit.state()}
            checkpoint.save(self._checkpoints(units[unit]), epoch * (len(batches) + 1) + batch, state)

        lines = {request.label: request.name or f"{request.role} {request.model}" for request in requests}
        epochs = max(r.spec.recipe["epochs"] for r in requests)
        epoch, batch = min(unit.position for unit in units)
        seen = epoch * len(images) + batch * spec.recipe["batch_size"]
        title = f"{self._place(len(requests))}, seed {spec.seed}"
        with Bar(title, lines, epochs=epochs, images=len(images), start=seen) as bar:
            train(
                list(units),
                teachers,
                self._course(first, batches),
                stop=self.stop,
                bar=bar,
                save=save,
                diverged=diverged,
            )
        for unit in units:
            for learner in reversed(unit.learners):  # peers' checkpoint lies with the first, so that goes last
                if learner not in ready:
                    try:
                        ready[learner] = self._commit(
                            learners[learner], self.finisher.finished(learners[learner], learner)
                        )
                    except Diverged as error:
                        diverged(learner, str(error))
        return list(ready.values())

    def _commit(self, request: Request, made: tuple[dict[str, bytes], dict[str, Any]]) -> Artifact:
        """Commit what a training made; a peer that was there already, trained once more for another's sake, stays."""
        return self.store.find(request.spec.fingerprint) or self.store.commit(self._folder(request), *made)

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

    def _unit(self, group: Sequence[Request], teachers: Sequence[nn.Module], steps: int) -> Unit:
        """Make learners from their specs alone, and restore the newest checkpoint where there is one."""
        unit = new_unit(group, teachers, steps, self.device)
        for request in group:
            write_atomic(self._folder(request) / "spec.json", request.spec.json().encode())
        if (state := checkpoint.load(self._checkpoints(group))) is not None:
            label = group[0].label
            if state["torch"] != torch.__version__:
                log.warning("%s: was begun by torch %s; the rest may differ in the last bits", label, state["torch"])
            unit.restore(state)
            log.info("%s: resuming after epoch %d, batch %d", label, *unit.position)
        return unit

    def teachers(self, fingerprints: Sequence[str]) -> list[nn.Module]:
        """Load the cohort's teachers from the store, frozen and in eval mode."""
        found = [self.store.find(fingerprint) for fingerprint in fingerprints]
        assert all(a is not None and a.finished for a in found), "obtain the teachers before what learns from them"
        return [on_device(load_model(a), self.device).requires_grad_(False).eval() for a in found if a is not None]

    def _checkpoints(self, group: Sequence[Request]) -> Path:
        return self._folder(group[0]) / "checkpoint"

    def _folder(self, request: Request) -> Path:
        return self.store.folder(request.role, request.dataset, request.model, request.spec)
