"""Choose the network that a command means: a sweep's cell and a run's seed are chosen on validation. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdrun.artifact import Artifact
from kdrun.config import MEASURING
from kdrun.records import ArtifactJson
from kdrun.results.find import entries, stored
from kdrun.results.networks import StoredNetwork
from kdrun.results.runs import Run, all_runs, called
from kdrun.results.sweep.sweep import named_run
from kdrun.store import Store

ROLE = "student"  # if no role is typed


@dataclass(frozen=True)
class Choice:
    """One network: its fingerprint, its run, and in words why it was chosen."""

    fingerprint: str
    run: Run | None = None
    used: ArtifactJson = field(default_factory=ArtifactJson)  # its entry in that run's run.json
    reason: str = ""
    store: Path | None = None  # the store that holds it, if its folder or fingerprint was named
    warning: str = ""  # why it may be a poor choice

    @property
    def role(self) -> str | None:
        """Its role in its run, which may differ from the role it was trained in."""
        return called(self.used)[0] if self.used else None

    def artifact(self, outputs: Path) -> Artifact:
        """Return the verified artifact. Raise ValueError if it is gone, RunFailed if it is damaged."""
        place = self.store or (self.run.store(outputs) if self.run else outputs / "store")
        artifact = Store(place).find(self.fingerprint)
        if artifact is None:
            again = f"; type its run's command again: {self.run.record.get('command')}" if self.run else ""
            raise ValueError(f"the network {self.fingerprint} is no longer in {place}{again}")
        return artifact


def choose(name: str, role: str, seed: int | None, outputs: Path) -> Choice:
    """Return the network that `name` means: that of `role` in a run or a sweep, a fingerprint, or a store's folder.

    Raise ValueError, naming what exists, if there is no such network, or if none of several can be preferred.
    """
    if known := stored(name, outputs):
        if seed is not None or role != ROLE:
            raise ValueError(f"{name}: already names a single network; leave role and seed out")
        return _by_fingerprint(*known, outputs)
    run, how_chosen, warning = named_run(name, outputs, role)
    used, how = _seed(name, run, entries(name, run, role, seed), seed, outputs)
    warning = f"{warning} role=baseline takes this cell's." if warning and used["role"] == "student" else ""
    return Choice(used["fingerprint"], run, used, "; ".join([*filter(None, [how_chosen]), how]), warning=warning)


def _by_fingerprint(fingerprint: str, store: Path, outputs: Path) -> Choice:
    for run in all_runs(outputs):
        for used in run.record.get("artifacts") or []:
            if used["fingerprint"] == fingerprint and run.record.get("verb") not in MEASURING:
                return Choice(fingerprint, run, used, f"named by its fingerprint; its newest run is {run.name}", store)
    return Choice(fingerprint, store=store, reason="named by its fingerprint; no run here uses it")


def _seed(
    name: str, run: Run, fitting: Sequence[ArtifactJson], seed: int | None, outputs: Path
) -> tuple[ArtifactJson, str]:
    """Return the entry of the typed seed, else that of the best seed on validation, and the reason in words."""
    candidates = []
    for used in fitting:
        try:
            candidates.append((used, StoredNetwork.read(run.store(outputs) / used["folder"], used)))
        except ValueError:
            raise ValueError(f"{name}: its {called(used)[0]} {used['folder']} is no longer in the store") from None
    done = [(used, network) for used, network in candidates if network.finished]
    if not done:
        states = ", ".join(f"seed {network.seed} {network.result['status']}" for _, network in candidates)
        raise ValueError(f"{name}: has no finished {called(fitting[0])[0]}: {states}")
    if seed is not None:
        return done[0][0], f"seed {seed}"
    if len(done) == 1:
        return done[0][0], f"seed {done[0][1].seed}, the only one"
    if any(math.isnan(network.point("val")) for _, network in done):
        return done[0][
            0
        ], f"seed {done[0][1].seed}, the first of {len(done)}: there was no validation data to choose by"
    used, best = min(done, key=lambda pair: (-pair[1].point("val"), pair[1].point("val", "nll"), pair[1].seed))
    return used, f"seed {best.seed}, the best of {len(done)} by validation accuracy ({100 * best.point('val'):.2f}%)"
