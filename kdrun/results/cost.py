"""What networks cost, side by side: size, operations, latency, memory, and the factors against the teacher."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from kdrun import console
from kdrun.measuring.kept import all_kept
from kdrun.records import RunJson
from kdrun.results import statistics
from kdrun.results.networks import Row, StoredNetwork, names_of, read_rows
from kdrun.results.plots.pareto import Point, plot_pareto
from kdrun.results.tables import Exact, Table, write_tables
from kdrun.spec import Spec
from kdrun.store import write_atomic

BATCHES = ("1", "128")  # as what is kept names them
Machine = Mapping[str, Any]  # on what time and memory were measured


@dataclass(frozen=True)
class Cost:
    """What networks of one architecture cost; `timed` is what was kept of a measurement, where there is one."""

    parameters: int
    bytes: int
    macs: int | None
    timed: Mapping[str, Any] | None = None

    def latency(self, batch: str, key: str = "median_ms") -> float | None:
        """Return the milliseconds of a batch."""
        return None if self.timed is None else float(self.timed["latency"][batch][key])

    def memory(self, batch: str) -> int | None:
        """Return the bytes that a batch takes at its worst moment."""
        return None if self.timed is None else int(self.timed["memory"][batch])

    def data(self, teacher: Cost | None) -> dict[str, Any]:
        """Return all of it as JSON, with the factors against the teacher."""
        factors = {
            "parameters": factor(teacher, self, lambda cost: cost.parameters),
            "bytes": factor(teacher, self, lambda cost: cost.bytes),
            "macs": factor(teacher, self, lambda cost: cost.macs),
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


class Columns(NamedTuple):
    """Columns for a table: their headings, the cells of each row, and the notes without which they say too little."""

    headers: list[str]
    cells: list[list[str]]
    notes: list[str]


def cost_columns(
    rows: Sequence[Sequence[StoredNetwork]], teachers: Sequence[Sequence[StoredNetwork]] = (), *, device: str = ""
) -> Columns:
    """Return cost as columns beside any table: a row of cells for each group of networks of one architecture.

    Operations are known of every network that can be built here; time and memory of those that `kdrun evaluate RUN
    cost=true` has measured, on one machine for all: see `machine`. Factors are against the row's own of `teachers`,
    where these are given. Columns in which nobody has a number are left out.
    """
    teachers = teachers or [()] * len(rows)
    distinct = {tuple(network.folder for network in teacher): teacher for teacher in teachers}
    where = machine([*rows, *distinct.values()], device)
    against = [cost_of(teacher, where) for teacher in teachers]
    costs = [cost_of(row, where) for row in rows]
    headers = ["MACs", "ms @1", "ms @128", "memory", "× smaller", "× faster @1", "× faster @128"]
    cells = [
        ["–"] * len(headers)
        if cost is None
        else [_operations(cost), *(_latency(cost, at) for at in BATCHES), _memory(cost), *_factors(cost, theirs)]
        for cost, theirs in zip(costs, against, strict=True)
    ]
    kept = [i for i in range(len(headers)) if any(row[i] != "–" for row in cells)]
    told = _notes([cost for cost in (*costs, *against) if cost is not None]) if kept else []
    return Columns([headers[i] for i in kept], [[row[i] for i in kept] for row in cells], told)


def cost_of(networks: Sequence[StoredNetwork], where: Machine | None = None) -> Cost | None:
    """Return what networks of one architecture cost, with what the newest measurement on a machine found of any."""
    finished = [m for m in networks if m.result.get("parameters") and m.finished]
    if not finished:
        return None
    known = [
        kept for m in finished for kept in all_kept(m.folder, "cost") if where is not None and machine_of(kept) == where
    ]
    timed = max(known, key=lambda kept: str(kept["created"]), default=None)
    macs = operations(finished[0].folder) if timed is None else int(timed["macs"])
    result = finished[0].result
    return Cost(int(result["parameters"]), int(result["bytes"]), macs, timed)


@lru_cache(maxsize=256)
def operations(artifact: Path) -> int | None:
    """Count the MACs of an artifact's network for one image; None where it cannot be built here. Imports torch."""
    from kdrun.measuring.cost import operations_of

    try:
        return operations_of(Spec.from_json((artifact / "spec.json").read_text()))["macs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def machine(rows: Sequence[Sequence[StoredNetwork]], device: str = "") -> Machine | None:
    """Choose the machine that knows most of the rows; of several the one that measured last.

    `device` narrows it to those whose name or kind (cpu, cuda) begins so. None where none has measured any.
    """
    known: dict[str, tuple[set[int], str, Machine]] = {}
    for number, row in enumerate(rows):
        for kept in (kept for network in row for kept in all_kept(network.folder, "cost")):
            where = machine_of(kept)
            if any(str(where[key]).lower().startswith(device.lower()) for key in ("device", "kind")):
                covered, newest, _ = known.get(json.dumps(where), (set[int](), "", where))
                known[json.dumps(where)] = (covered | {number}, max(newest, str(kept["created"])), where)
    best = max(known.values(), key=lambda found: (len(found[0]), found[1]), default=None)
    return None if best is None else best[2]


def machine_of(kept: Mapping[str, Any]) -> Machine:
    """Say on what a measurement was made: what must be alike for two to be compared."""
    return {key: kept["settings"].get(key) for key in ("device", "kind", "threads", "torch")}


def factor(teacher: Cost | None, own: Cost, read: Callable[[Cost], float | None]) -> float | None:
    """Return how many times a network's own number the teacher's is; None where one is not known."""
    theirs, ours = None if teacher is None else read(teacher), read(own)
    return theirs / ours if theirs and ours else None


Group = tuple[str, str, Sequence[StoredNetwork]]  # label, role and networks


def pareto_points(groups: Sequence[Group], where: Machine | None = None) -> list[Point]:
    """Return the points of a picture of accuracy over cost: for each group, mean and spread over seeds.

    Groups that are the same trainings are one point, and those without test accuracy are none. Without a machine
    it is the one that knows most of them.
    """
    where = where or machine([networks for _, _, networks in groups])
    points: dict[frozenset[str], Point] = {}
    for label, role, networks in groups:
        finished = [m for m in networks if m.finished]
        accuracy = statistics.summary([m.point("test") for m in finished])
        cost = cost_of(finished, where)
        if accuracy is None or cost is None:
            continue
        costs = {"parameters": float(cost.parameters), "macs": None if cost.macs is None else float(cost.macs)}
        costs |= {f"latency_{at}": cost.latency(at) for at in BATCHES}
        same = frozenset(str(m.result["fingerprint"]) for m in finished)
        points.setdefault(same, Point(label, role, accuracy, {k: v for k, v in costs.items() if v is not None}, where))
    return list(points.values())


def plot_pareto_by_data(groups: Sequence[Group], folder: Path, where: Machine | None = None) -> list[tuple[str, Path]]:
    """Draw pareto.png and .svg, and where there are several data sets pareto-DATASET: on other images all is otherwise.

    Gives each data set's name with its picture; one of which fewer than two networks are known has none.
    """
    by_data: dict[tuple[str, str], list[Group]] = {}
    for label, role, networks in groups:
        for result in (network.result for network in networks[:1]):
            key = (str(result["dataset"]), str(result.get("data") or ""))
            by_data.setdefault(key, []).append((label, role, networks))
    points = {key: pareto_points(alike, where) for key, alike in by_data.items()}
    points = {key: found for key, found in points.items() if len(found) > 1}
    names = [dataset for dataset, _ in points]
    drawn = []
    for (dataset, digest), found in points.items():
        title = dataset if names.count(dataset) == 1 else f"{dataset}-{digest[:6]}"
        name = "pareto" if len(points) == 1 else f"pareto-{title}"
        drawn += [(title, path)] if (path := plot_pareto(found, folder, name=name)) is not None else []
    return drawn


def cost_table(rows: Sequence[Row], machines: Sequence[Machine], command: str = "") -> Table:
    """Return the table of a run's networks: a row for each row of networks and machine."""
    names = names_of(rows)
    told, costs = [], []
    for where in machines:
        against = teacher_cost(rows, where)
        for row in rows:
            cost = cost_of(row.finished, where)
            if cost is None:
                continue
            costs.append(cost)
            told.append([
                names[row], row.model, str(where["kind"]) if len(machines) > 1 else "–",
                Exact(console.count(cost.parameters), {"": cost.parameters}),
                Exact(console.size(cost.bytes), {"bytes": cost.bytes}),
                _operations(cost), *(cell for at in BATCHES for cell in (_latency(cost, at), _p95(cost, at))),
                _memory(cost), *_factors(cost, against),
            ])  # fmt: skip
    columns = ["role", "model", "on", "params", "size", "MACs", "ms @1", "p95 @1", "ms @128", "p95 @128", "memory",
               "× smaller", "× faster @1", "× faster @128"]  # fmt: skip
    notes = _notes(costs)
    if len([row for row in rows if row.role == "teacher"]) > 1:
        notes.append("there are several teachers, so there are no factors")
    table = Table(columns, told, notes=notes, sources=[f"made by: {command}"] * bool(command))
    return table.without_empty("on", "× smaller", "× faster @1", "× faster @128")


def teacher_cost(rows: Sequence[Row], where: Machine) -> Cost | None:
    """Return the cost of the teacher; None where there is none, or where there are several."""
    teachers = [row for row in rows if row.role == "teacher"]
    return cost_of(teachers[0].finished, where) if len(teachers) == 1 else None


def write_cost(
    folder: Path,
    artifacts: Sequence[Path],
    record: RunJson,
    machines: Sequence[Machine],
    *,
    command: str = "",
) -> str:
    """Write cost.{md,csv,json,tex} and the picture of accuracy over latency, and give the text for the terminal.

    `record` is the run.json of the run whose artifacts these are.
    """
    rows = read_rows(artifacts, record)
    names = names_of(rows)
    table = cost_table(rows, machines, command)
    write_tables(folder, "cost", table)
    networks = []
    for where in machines:
        against = teacher_cost(rows, where)
        for row in rows:
            if (cost := cost_of(row.finished, where)) is not None:
                networks.append(
                    {"name": names[row], "role": row.role, "model": row.model, "machine": where} | cost.data(against)
                )
    whole = {"kind": "cost", "networks": networks, "table": table.to_json()}
    write_atomic(folder / "cost.json", (json.dumps(whole, indent=2, allow_nan=False) + "\n").encode())
    labels = {row: name if row.model in name.split() else f"{name} {row.model}" for row, name in names.items()}
    groups = [(labels[row], row.role, row.finished) for row in rows]
    plot_pareto_by_data(groups, folder, machines[0])
    return table.to_text()


def _operations(cost: Cost) -> str:
    return "–" if cost.macs is None else Exact(console.count(cost.macs), {"": cost.macs, "FLOPs": 2 * cost.macs})


def _latency(cost: Cost, batch: str) -> str:
    median = cost.latency(batch)
    return "–" if median is None else Exact(_short(median), {"": median, "p95": cost.latency(batch, "p95_ms") or 0.0})


def _p95(cost: Cost, batch: str) -> str:
    value = cost.latency(batch, "p95_ms")
    return "–" if value is None else Exact(_short(value), {"": value})


def _memory(cost: Cost) -> str:
    found = {at: held for at in BATCHES if (held := cost.memory(at)) is not None}
    return (
        Exact(console.size(found[BATCHES[-1]]), {f"bytes @{at}": held for at, held in found.items()}) if found else "–"
    )


def _factors(cost: Cost, against: Cost | None) -> list[str]:
    found = [factor(against, cost, lambda cost: cost.parameters)]
    found += [factor(against, cost, partial(Cost.latency, batch=at)) for at in BATCHES]
    return ["–" if value is None else Exact(_short(value), {"": value}) for value in found]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _notes(costs: Sequence[Cost]) -> list[str]:
    told = [
        "MACs: multiply–add pairs of convolutions and matrix products for one image, by torch's FlopCounterMode "
        "(FLOPs: twice that); biases, normalisation and element-wise work are not counted"
    ]
    timed = [cost.timed for cost in costs if cost.timed is not None]
    for kept in {json.dumps(machine_of(kept)): kept for kept in timed}.values():
        settings, threads = kept["settings"], kept["settings"]["threads"]
        cpu = settings["kind"] == "cpu"
        on = settings["device"] + (f", {threads} thread{'s'[: threads != 1]}" if cpu else "")
        scratch = "without scratch memory inside of kernels" if cpu else "with the workspaces of its libraries"
        told.append(
            f"ms: a forward pass of 1 and of 128 images on {on}, {settings['precision']}, torch {settings['torch']}: "
            f"median and 95th percentile of up to {kept['latency']['1']['runs']} and {kept['latency']['128']['runs']} "
            "runs after warm-up, networks taking turns; memory: weights, images and tensors alive at once at batch "
            f"128, {scratch}"
        )
    if timed and len({(kept["sitting"], json.dumps(machine_of(kept))) for kept in timed}) > len(
        {json.dumps(machine_of(k)) for k in timed}
    ):
        told.append(
            "not all were timed in one sitting, so small factors may be the machine's: kdrun evaluate RUN cost=true "
            "times a run's networks together"
        )
    return told
