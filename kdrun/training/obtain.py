"""`obtain`: the only way to a trained network. Finds what the store has, trains the rest, says which and why."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Sequence

import torch

from kdrun import console
from kdrun.store import Artifact, Busy, CannotWrite, RunFailed, Store, begun
from kdrun.tracking.base import Tracking
from kdrun.training import devices, estimate
from kdrun.training.networks import ChangedBatch
from kdrun.training.request import Request, cohorts, together
from kdrun.training.stop import Interrupted, StopFlag
from kdrun.training.trainer import Trainer

log = logging.getLogger(__name__)
ROOM = 0.8  # of the free memory that a cohort may plan to fill: an estimate knows no library's working space


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
        anew_before: float = 0.0,
        remember: bool = True,
        tracking: Tracking | None = None,
    ) -> None:
        self.store, self.device, self.stop = store, device, stop
        self.anew_before = anew_before  # force=true: what was begun before the command, in seconds since the epoch
        self.trainer = Trainer(
            store, device, command=command, stop=stop, workers=workers, remember=remember, tracking=tracking
        )
        self.wanted, self.made = 0, 0  # trainings that this command has to do, and those it has done

    def expect(self, requests: Sequence[Request]) -> None:
        """Count what is missing of all that this command will ask for, so that a bar can say which it shows."""
        self.wanted = len({r.spec.fingerprint for r in self.missing(requests)})

    def missing(self, requests: Sequence[Request]) -> list[Request]:
        """Return those that would be trained."""
        return [request for request in requests if self._in_store(request) is None]

    def obtain(self, requests: Sequence[Request]) -> list[Artifact]:
        """Return the artifacts of all requests, in order; train the missing ones, each by one process.

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
            if self.anew_before:
                self.store.discard(request.spec.fingerprint, before=self.anew_before)
            found = self.store.find(request.spec.fingerprint)
            if found is not None and request.group in lacking:
                rest.append(request)  # for its peers' sake
            elif found is not None:
                self._tell_found(request, found, ", trained by another process")
                ready.append(found)
            elif request.adopted:
                log.info("%s: taking the weights of %s", request.label, request.weights)
                ready.append(self.trainer.adopt(request))
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
        """Return the groups of peers of which one is missing."""
        return {r.group for r in cohort if r.group and self.store.find(r.spec.fingerprint) is None}

    def _in_store(self, request: Request) -> Artifact | None:
        found = self.store.find(request.spec.fingerprint)
        return None if found is not None and begun(found.folder) < self.anew_before else found

    def _tell_found(self, request: Request, found: Artifact, whence: str = "") -> None:
        made, here = found.result, devices.describe(self.device)
        torch_then = made["versions"]["torch"]
        elsewhere = [f"by torch {torch_then}"] if torch_then != torch.__version__ else []
        elsewhere += [f"on {made['device']}"] if made["device"] != here else []
        elsewhere += [f"with {made['threads']} threads"] if made["threads"] != torch.get_num_threads() else []
        elsewhere += [f"by {made['ranks']} processes"] if made.get("ranks", 1) != self.trainer.ranks.count else []
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
            return self.trainer.train(requests, self._place(len(requests)))
        except torch.OutOfMemoryError:
            peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
        except ChangedBatch as error:
            if len(groups) == 1:
                raise
            log.warning("%s: one at a time, so that this stops no other", error)
            return self._one_at_a_time(groups)
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

    def _place(self, count: int) -> str:
        """Return which trainings of how many are under way."""
        first, last = self.made + 1, self.made + count
        return f"training {first if first == last else f'{first}–{last}'} of {self.wanted}"
