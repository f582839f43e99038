"""`obtain`: the only way to get a trained network. Find what the store has, train the rest, and log which and why."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from tqdm import tqdm

from kdrun import console, memory
from kdrun.artifact import Artifact, Damaged
from kdrun.console import bars_off
from kdrun.files import CannotWrite, RunFailed
from kdrun.locks import Busy
from kdrun.memory import OutOfMemory
from kdrun.training import devices, estimate
from kdrun.training.networks import ChangedBatch
from kdrun.training.request import Request, cohorts, group_peers
from kdrun.training.settings import Settings
from kdrun.training.trainer import Trainer

log = logging.getLogger(__name__)
REPEAT_SECONDS = 60.0  # between two log lines while waiting for another process
MEMORY_SHARE = 0.8  # of the free memory, for a cohort's estimated size, which excludes libraries' workspaces


class Obtainer:
    """Finds and trains the networks of a command."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.trainer = settings, Trainer(settings)
        self.store, self.device, self.stop = settings.store, settings.device, settings.stop
        self.total, self.done = 0, 0  # trainings of this command

    def expect(self, requests: Sequence[Request]) -> list[Request]:
        """Return which of all this command's trainings are missing, and count them for the titles of progress bars."""
        missing = self.missing(requests)
        self.total = len(missing)
        self.trainer.pace.expect(missing)
        return missing

    def missing(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests that would be trained, only the first one of each fingerprint."""
        unique: dict[str, Request] = {}
        for request in requests:
            unique.setdefault(request.spec.fingerprint, request)
        with console.busy("looking into the store"):
            return [request for request in unique.values() if self._in_store(request) is None]

    def obtain(self, requests: Sequence[Request]) -> list[Artifact]:
        """Return the artifacts of all requests, in order; train the missing ones, each in one process only.

        Trainings that share batches and teachers form a cohort. A diverged training is an artifact with that status.
        Raise RunFailed if a training cannot be finished, Interrupted once a signal has come.
        """
        ready: dict[str, Artifact] = {}
        missing: list[Request] = []
        there: list[tuple[Request, Artifact]] = []
        unique: dict[str, Request] = {}  # with alpha=0 the student is the baseline
        for request in requests:
            unique.setdefault(request.spec.fingerprint, request)
        for request in unique.values():
            if (artifact := self._in_store(request)) is not None:
                there.append((request, artifact))
                self.store.tidy(artifact.folder, artifact.fingerprint)
                ready[artifact.fingerprint] = artifact
            else:
                missing.append(request)
        self._log_found(there)
        self.trainer.pace.expect(missing)
        groups = {request.group for request in missing if request.group}  # peers can only be trained together
        missing += [r for r in unique.values() if r.group in groups and r.spec.fingerprint in ready]
        self.total = max(self.total, self.done + len(missing))
        for cohort in cohorts(missing):
            for artifact in self._obtain_cohort(cohort):
                ready[artifact.fingerprint] = artifact
            self.done += len(cohort)
        return [ready[request.spec.fingerprint] for request in requests]

    def _obtain_cohort(self, cohort: Sequence[Request]) -> list[Artifact]:
        """Obtain a cohort under its locks: first the groups that no other process holds; reuse what others finished."""
        ready: list[Artifact] = []
        remaining = group_peers(cohort)
        while remaining:
            with contextlib.ExitStack() as locks:
                locked = [group for group in remaining if self._lock(group, locks)]
                if not locked:
                    locked = remaining[:1]
                    self._lock(remaining[0], locks, wait=True)
                held = {request.spec.fingerprint for group in locked for request in group}
                ready += self._obtain_locked([r for r in cohort if r.spec.fingerprint in held])
            remaining = [group for group in remaining if group not in locked]
        return ready

    def _lock(self, group: Sequence[Request], locks: contextlib.ExitStack, *, wait: bool = False) -> bool:
        """Take the locks of a group of peers; with wait=False, take no lock if any of them is held."""
        with contextlib.ExitStack() as own:
            for request in group:  # in the order of `group_peers`, which prevents a deadlock
                with self._waiting(request) if wait else contextlib.nullcontext() as waiting:
                    try:
                        own.enter_context(self.store.locked(request.spec.fingerprint, waiting))
                    except Busy:
                        return False
            locks.enter_context(own.pop_all())
        return True

    def _obtain_locked(self, cohort: Sequence[Request]) -> list[Artifact]:
        ready, to_train = [], []
        if self.settings.anew:
            for r in cohort:
                folder = self.store.folder(r.role, r.dataset, r.model, r.spec)
                self.store.begin_anew(folder, r.spec, self.settings.anew)
        incomplete = {r.group for r in cohort if r.group and self._find_locked(r) is None}
        for request in cohort:
            artifact = self._find_locked(request)
            if artifact is not None and request.group in incomplete:
                to_train.append(request)  # trained again, because its peers need it
            elif artifact is not None:
                self._log_found([(request, artifact)], ", trained by another process")
                ready.append(artifact)
            elif request.adopted:
                what = "weights" if request.answers is None else "answers"
                log.info("%s: using the %s of %s", request.label, what, request.weights)
                ready.append(self.trainer.adopt(request))
            else:
                self._log_training(request)
                to_train.append(request)
        for part in self._split_to_fit(to_train):
            ready += self._train_together(part)
        return ready

    def _split_to_fit(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Split a cohort into parts that should each fit into memory."""
        groups = group_peers(requests)
        if len(groups) < 2:
            return [list(requests)] if requests else []
        room = int(MEMORY_SHARE * devices.free_memory(self.device))
        with console.busy("estimating the memory"):
            parts = estimate.split(groups, room)
        if len(parts) > 1:
            sizes = (len(requests), self.device, console.size(room), len(parts))
            log.info("%d trainings together need more memory than %s has free (%s): training them in %d groups", *sizes)
        return parts

    def _find_locked(self, request: Request) -> Artifact | None:
        """Return a request's artifact, or None; the lock must be held. Set a damaged one aside and raise RunFailed."""
        try:
            return self.store.find(request.spec.fingerprint)
        except Damaged as error:
            aside = self.store.set_aside(error.folder)
            raise RunFailed(
                f"the artifact {error.folder.name} is damaged ({error.reason}); it was moved aside as {aside}. Type "
                f"the "
                "same command again to retrain it"
            ) from error

    def _in_store(self, request: Request) -> Artifact | None:
        try:
            artifact = self.store.find(request.spec.fingerprint)
        except Damaged:  # another process may be writing it: it is read again once its lock is held
            return None
        anew = self.settings.anew
        outdated = artifact is not None and anew and not self.store.begun_anew(artifact, anew)
        return None if outdated else artifact

    def _log_found(self, there: Sequence[tuple[Request, Artifact]], source: str = "") -> None:
        """Log which artifacts were found: one line per network with its seeds; in detail, one line per artifact."""
        seeds: dict[tuple[str, str, bool], list[str]] = {}
        for request, artifact in there:
            how = self._circumstances(artifact)
            log.log(console.DETAIL, "%s: found %s%s%s", request.label, artifact.fingerprint, source, how)
            seeds.setdefault((request.network, source + how, request.seeded), []).append(str(request.spec.seed))
        for (network, how, seeded), own in seeds.items():
            which = f", seed{'s'[: len(own) != 1]} {', '.join(own)}" if seeded else ""
            log.info("%s: in the store already%s%s", network, which, how)

    def _circumstances(self, artifact: Artifact) -> str:
        """Return in words how an artifact's environment differs from this one and, if its training failed, how."""
        result, device = artifact.result, devices.describe(self.device)
        version = result["versions"]["torch"]
        changes = [f"by torch {version}"] if version != torch.__version__ else []
        changes += [f"on {result['device']}"] if result["device"] != device else []
        changes += [f"with {result['threads']} threads"] if result["threads"] != torch.get_num_threads() else []
        changes += [f"by {result['ranks']} processes"] if result.get("ranks", 1) != self.settings.ranks.count else []
        note = f", trained {' '.join(changes)}" if changes else ""
        state = "" if artifact.finished else f" ({result['status']}: {result['reason']}; force=true retrains it)"
        return note + state

    def _log_training(self, request: Request) -> None:
        near = self.store.nearest(request.role, request.dataset, request.model, request.spec)
        keys = "" if near is None else ", ".join(near[1][:4] + (["…"] if len(near[1]) > 4 else []))
        reason = f"; differs from {near[0]} in {keys}" if near is not None else ""
        log.log(console.DETAIL, "%s: training %s%s", request.label, request.spec.fingerprint, reason)

    @contextlib.contextmanager
    def _waiting(self, request: Request) -> Iterator[Callable[[], None]]:
        """Yield a function to call while waiting for a lock: it shows the holder, and raises Interrupted on a signal.

        The holder is logged at once and then every minute; on a terminal a line shows it all the time.
        """
        due = 0.0
        with tqdm(bar_format="{desc}{bar}", position=0, leave=False, disable=bars_off()) as line:

            def waiting() -> None:
                nonlocal due
                self.stop.check()
                holder = self.store.holder(request.spec.fingerprint) or "another process"
                text = f"{request.label}: waiting for {holder}"
                line.set_description_str(text)
                if (now := time.monotonic()) >= due:
                    log.log(console.RESULT, "%s", text, extra={"shown_by_bar": due > 0})
                    due = now + REPEAT_SECONDS

            yield waiting

    def _train_together(self, requests: Sequence[Request]) -> list[Artifact]:
        """Train a cohort; if it fails, log why and train its groups one at a time, from their checkpoints.

        Raise RunFailed if a single training does not fit into memory. An error of a single training is raised once
        the others of its cohort are done.
        """
        groups = group_peers(requests)
        first, last = self.done + 1, self.done + len(requests)
        title = f"training {first if first == last else f'{first}–{last}'} of {self.total}"
        if not self.done:
            log.info("training on %s, in %s", devices.describe(self.device), requests[0].spec.precision)
        try:
            with contextlib.closing(self.settings.tracking):
                return self.trainer.train(requests, title)
        except Exception as error:
            changed = isinstance(error, ChangedBatch)
            if memory.ran_out(error):
                pass  # handled below, where the error no longer keeps the frames alive that it was raised in
            elif len(groups) == 1 or (isinstance(error, RunFailed | ValueError) and not changed):
                raise
            elif changed:
                log.warning("%s: training one at a time, so that the others continue", error)
                return self._one_at_a_time(groups)
            else:
                what = f"{type(error).__name__}: {error}"
                log.warning("%s trainings failed together (%s): training one at a time", len(requests), what)
                return self._one_at_a_time(groups)
        cuda = self.device.type == "cuda"
        used = f" (peak {console.size(torch.cuda.max_memory_allocated(self.device))})" if cuda else memory.peak()
        gc.collect()  # free the learners, which the frames of the error kept alive
        if cuda:
            torch.cuda.empty_cache()
        size = f"recipe.batch_size={requests[0].spec.recipe['batch_size']}"
        if len(groups) == 1:
            raise OutOfMemory(
                f"{requests[0].label}: out of memory with {size}{used}; type a smaller batch size, or another device"
            )
        text = "%s trainings do not fit into memory together with %s%s: training one at a time"
        log.warning(text, len(requests), size, used)
        return self._one_at_a_time(groups)

    def _one_at_a_time(self, groups: Sequence[Sequence[Request]]) -> list[Artifact]:
        ready: list[Artifact] = []
        errors: list[Exception] = []
        for group in groups:
            done = [self.store.find(r.spec.fingerprint) for r in group]
            try:
                ready += [a for a in done if a] if all(done) else self._train_together(group)
            except CannotWrite:
                raise
            except Exception as error:
                log.warning("%s: %s", group[0].label, error)
                errors.append(error)
        if errors:
            raise errors[0]
        return ready
