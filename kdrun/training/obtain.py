"""`obtain`: the only way to a trained network. Finds what the store has, trains the rest, says which and why."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdrun import console, losses
from kdrun.data.batches import Batches, counted
from kdrun.data.sets import ImageSet
from kdrun.spec import canonical
from kdrun.store import Artifact, Busy, CannotWrite, RunFailed, Store, begun, write_atomic
from kdrun.training import checkpoint, devices, distributed, estimate, jobs
from kdrun.training.cohort import Course, train
from kdrun.training.compiled import compile_forward, explained
from kdrun.training.finish import Finisher
from kdrun.training.jobs import Job
from kdrun.training.learner import Diverged, Learner
from kdrun.training.networks import build_model, is_batch_norm, load_model, on_device
from kdrun.training.progress import Bar, NoBar
from kdrun.training.request import Request, cohorts, together
from kdrun.training.stop import Interrupted, StopFlag
from kdrun.training.teaching import MOST_FORMS, Table, refused
from kdrun.training.unit import Unit, new_unit

log = logging.getLogger(__name__)
ROOM = 0.8  # of the free memory that a cohort may plan to fill: an estimate knows no library's working space
LOADED = time.time()


def _started() -> float:
    """Say when the command began: force=true trains anew what was begun before, once for all cells of a sweep."""
    return float(os.environ.get("KDRUN_STARTED", LOADED))


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
        remember: bool = True,
    ) -> None:
        self.store, self.device, self.stop, self.workers, self.force = store, device, stop, workers, force
        self.ranks = distributed.current()
        self.finisher = Finisher(device, stop, command=command, workers=workers, ranks=self.ranks)
        self.told_of_norms = False
        self.remember, self.tables = remember, dict[str, Table]()
        self.told: set[str | None] = set()
        if self.ranks.count > 1 and device.type == "cuda":
            torch.cuda.set_device(device)  # where the processes' messages go
        self.wanted, self.made = 0, 0  # trainings that this command has to do, and those it has done

    def expect(self, requests: Sequence[Request]) -> None:
        """Count what is missing of all that this command will ask for, so that a bar can say which it shows."""
        self.wanted = len({r.spec.fingerprint for r in self.missing(requests)})

    def missing(self, requests: Sequence[Request]) -> list[Request]:
        """Give those that would be trained."""
        return [request for request in requests if self._in_store(request) is None]

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
        """Train a cohort under its locks: first what nobody holds, so that commands that share some need not wait.

        What another process finished while we waited is taken from it.
        """
        ready: list[Artifact] = []
        left = together(cohort)
        while left:
            with contextlib.ExitStack() as locks:
                ours = [group for group in left if self._lock(group, locks)]
                if not ours:
                    ours = left[:1]
                    self._lock(left[0], locks, wait=True)
                held = {request.spec.fingerprint for group in ours for request in group}
                ready += self._obtain_locked([r for r in cohort if r.spec.fingerprint in held])
            left = [group for group in left if group not in ours]
        return ready

    def _lock(self, group: Sequence[Request], locks: contextlib.ExitStack, *, wait: bool = False) -> bool:
        """Take the locks of what can only be trained together; without waiting none, where one of them is held."""
        with contextlib.ExitStack() as own:
            for request in group:  # `together` has put them in one order, or two could block one another
                waiting = self._waiting(request) if wait else None
                try:
                    own.enter_context(self.store.locked(request.spec.fingerprint, waiting))
                except Busy:
                    return False
            locks.enter_context(own.pop_all())
        return True

    def _obtain_locked(self, cohort: Sequence[Request]) -> list[Artifact]:
        ready, rest = [], []
        lacking = self._lacking(cohort)
        for request in cohort:
            if self.force:
                self.store.discard(request.spec.fingerprint, before=_started())
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
        return None if found is not None and self.force and begun(found.folder) < _started() else found

    def _tell_found(self, request: Request, found: Artifact, whence: str = "") -> None:
        made, here = found.result, devices.describe(self.device)
        torch_then = made["versions"]["torch"]
        elsewhere = [f"by torch {torch_then}"] if torch_then != torch.__version__ else []
        elsewhere += [f"on {made['device']}"] if made["device"] != here else []
        elsewhere += [f"with {made['threads']} threads"] if made["threads"] != torch.get_num_threads() else []
        elsewhere += [f"by {made['ranks']} processes"] if made.get("ranks", 1) != self.ranks.count else []
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
        shown = Bar(title, lines, epochs=epochs, images=len(images), start=seen)
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
                        ready[learner] = self._commit(
                            learners[learner], self.finisher.finished(learners[learner], learner)
                        )
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

    def _commit(self, request: Request, made: tuple[dict[str, bytes], dict[str, Any]]) -> Artifact:
        """Commit what a training made; a peer that was there already, trained once more for another's sake, stays."""
        return self.store.find(request.spec.fingerprint) or self.store.commit(self._folder(request), *made)

    def _place(self, count: int) -> str:
        """Say which trainings of how many are under way."""
        first, last = self.made + 1, self.made + count
        return f"training {first if first == last else f'{first}–{last}'} of {self.wanted}"

    def _tables(self, requests: Sequence[Request], batches: Batches) -> list[Table]:
        """Give a table per teacher, where what it says is worth remembering; say so, or why not.

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
        """Give an artifact's trained network; other processes than the first take its weights from there."""
        made = load_model(artifact) if self.ranks.leads else build_model(artifact.spec, blank=True)
        network = on_device(made, self.device)
        self.ranks.align(*network.parameters(), *network.buffers())
        return network

    def _checkpoints(self, group: Sequence[Request]) -> Path:
        return self._folder(group[0]) / "checkpoint"

    def _folder(self, request: Request) -> Path:
        return self.store.folder(request.role, request.dataset, request.model, request.spec)
