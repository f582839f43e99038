"""What networks cost: size, operations, latency, memory, and the factors against the teacher."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from kdrun.measuring.cache import all_cached
from kdrun.results.networks import StoredNetwork
from kdrun.spec import Spec

BATCHES = ("1", "128")  # batch sizes, as measurements name them
Machine = Mapping[str, Any]  # the machine that time and memory were measured on


@dataclass(frozen=True)
class Cost:
    """What networks of one architecture cost; `timed` is the stored measurement of time and memory, if there is one."""

    parameters: int
    bytes: int
    macs: int | None
    timed: Mapping[str, Any] | None = None

    def latency(self, batch: str, key: str = "median_ms") -> float | None:
        """Return the latency of a batch in milliseconds."""
        return None if self.timed is None else float(self.timed["latency"][batch][key])

    def memory(self, batch: str) -> int | None:
        """Return the peak memory of a batch in bytes."""
        return None if self.timed is None else int(self.timed["memory"][batch])

    def data(self, teacher: Cost | None) -> dict[str, Any]:
        """Return all numbers as JSON, with the factors against the teacher."""
        factors = {
            **{key: factor(teacher, self, attrgetter(key)) for key in ("parameters", "bytes", "macs")},
            **{f"latency_{at}": factor(teacher, self, partial(Cost.latency, batch=at)) for at in BATCHES},
        }
        return {
            "parameters": self.parameters,
            "bytes": self.bytes,
            "macs": self.macs,
            "flops": None if self.macs is None else 2 * self.macs,
            "latency": None if self.timed is None else self.timed["latency"],
            "memory": None if self.timed is None else self.timed["memory"],
            "times_the_teacher": factors,
        }


def cost_of(networks: Sequence[StoredNetwork], where: Machine | None = None) -> Cost | None:
    """Return what networks of one architecture cost, with the newest measurement of any of them on that machine."""
    finished = [m for m in networks if m.result.get("parameters") and m.finished]
    if not finished:
        return None
    known = [measured for m in finished for measured in all_cached(m.folder, "cost") if machine_of(measured) == where]
    timed = max(known, key=lambda measured: str(measured["created"]), default=None)
    macs = operations(finished[0].folder) if timed is None else int(timed["macs"])
    result = finished[0].result
    return Cost(int(result["parameters"]), int(result["bytes"]), macs, timed)


@lru_cache(maxsize=256)
def operations(artifact: Path) -> int | None:
    """Return the MACs of an artifact's network for one image; None if it cannot be built here. Imports torch."""
    from kdrun.measuring.cost import operations_of

    try:
        return operations_of(Spec.from_json((artifact / "spec.json").read_text()))["macs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def machine(rows: Sequence[Sequence[StoredNetwork]], device: str = "") -> Machine | None:
    """Return the machine that most of the rows were measured on; of equals, that of the newest measurement.

    `device` limits the choice to machines whose name or kind (cpu, cuda) begins with it. None if no row was measured.
    """
    known: dict[str, tuple[set[int], str, Machine]] = {}
    for number, row in enumerate(rows):
        for measured in (measured for network in row for measured in all_cached(network.folder, "cost")):
            where = machine_of(measured)
            if any(str(where[key]).lower().startswith(device.lower()) for key in ("device", "kind")):
                covered, newest, _ = known.get(json.dumps(where), (set[int](), "", where))
                known[json.dumps(where)] = (covered | {number}, max(newest, str(measured["created"])), where)
    best = max(known.values(), key=lambda entry: (len(entry[0]), entry[1]), default=None)
    return None if best is None else best[2]


def machine_of(measured: Mapping[str, Any]) -> Machine:
    """Return the machine of a measurement: the settings that two comparable measurements share."""
    return {key: measured["settings"].get(key) for key in ("device", "kind", "threads", "torch")}


def factor(teacher: Cost | None, own: Cost, read: Callable[[Cost], float | None]) -> float | None:
    """Return the teacher's number divided by a network's own; None if one is not known."""
    theirs, ours = None if teacher is None else read(teacher), read(own)
    return theirs / ours if theirs and ours else None
