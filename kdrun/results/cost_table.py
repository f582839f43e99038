"""The table of what networks cost, cost as columns of another table, and the files in a run's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from kdrun import console
from kdrun.records import RunJson
from kdrun.results.cost import BATCHES, Cost, Machine, cost_of, factor, machine, machine_of
from kdrun.results.networks import Row, StoredNetwork, names_of, read_rows
from kdrun.results.plots.pareto import plot_pareto_by_data
from kdrun.results.tables import Columns, Exact, Table, write_json, write_tables


def cost_columns(
    rows: Sequence[Sequence[StoredNetwork]], teachers: Sequence[Sequence[StoredNetwork]] = (), *, device: str = ""
) -> Columns:
    """Return cost as columns for any table: a row of cells for each group of networks of one architecture.

    Operations are known for every network that can be built here; time and memory for those that `kdrun evaluate RUN
    cost=true` measured, all on one machine (see `machine`). Factors compare a row with its own entry of `teachers`,
    if these are given. Empty columns are left out.
    """
    teachers = teachers or [()] * len(rows)
    distinct = {tuple(network.folder for network in teacher): teacher for teacher in teachers}
    where = machine([*rows, *distinct.values()], device)
    against = [cost_of(teacher, where) for teacher in teachers]
    costs = [cost_of(row, where) for row in rows]
    headings = ["MACs", "ms @1", "ms @128", "memory", "× smaller", "× faster @1", "× faster @128"]
    cells = [
        ["–"] * len(headings)
        if cost is None
        else [_operations(cost), *(_latency(cost, at) for at in BATCHES), _memory(cost), *_factors(cost, theirs)]
        for cost, theirs in zip(costs, against, strict=True)
    ]
    shown = [i for i in range(len(headings)) if any(row[i] != "–" for row in cells)]
    notes = _notes([cost for cost in (*costs, *against) if cost is not None]) if shown else []
    return Columns([headings[i] for i in shown], [[row[i] for i in shown] for row in cells], notes)


def cost_table(rows: Sequence[Row], machines: Sequence[Machine], command: str = "") -> Table:
    """Return the table of a run's networks: a line for each row of networks and machine."""
    names = names_of(rows)
    lines, costs = [], []
    for row, where, cost, against in _measured(rows, machines):
        costs.append(cost)
        lines.append([
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
        notes.append("there are several teachers, so no factors are computed")
    table = Table(columns, lines, notes=notes, sources=[f"command: {command}"] * bool(command))
    return table.without_empty("on", "× smaller", "× faster @1", "× faster @128")


def write_cost(
    folder: Path, artifacts: Sequence[Path], record: RunJson, machines: Sequence[Machine], *, command: str = ""
) -> str:
    """Write cost.{md,csv,json,tex} and the picture of accuracy over cost; return the text for the terminal."""
    rows = read_rows(artifacts, record)
    names = names_of(rows)
    table = cost_table(rows, machines, command)
    write_tables(folder, "cost", table)
    networks = [
        {"name": names[row], "role": row.role, "model": row.model, "machine": where} | cost.data(against)
        for row, where, cost, against in _measured(rows, machines)
    ]
    write_json(folder / "cost.json", {"kind": "cost", "networks": networks, "table": table.to_json()})
    labels = {row: name if row.model in name.split() else f"{name} {row.model}" for row, name in names.items()}
    groups = [(labels[row], row.role, row.finished) for row in rows]
    plot_pareto_by_data(groups, folder, machines[0])
    return table.to_text("cost.md has them")


def _measured(rows: Sequence[Row], machines: Sequence[Machine]) -> Iterator[tuple[Row, Machine, Cost, Cost | None]]:
    """Yield, by machine, each row with a finished network, its cost, and the teacher's cost if there is just one."""
    teachers = [row for row in rows if row.role == "teacher"]
    for where in machines:
        against = cost_of(teachers[0].finished, where) if len(teachers) == 1 else None
        for row in rows:
            if (cost := cost_of(row.finished, where)) is not None:
                yield row, where, cost, against


def _operations(cost: Cost) -> str:
    return "–" if cost.macs is None else Exact(console.count(cost.macs), {"": cost.macs, "FLOPs": 2 * cost.macs})


def _latency(cost: Cost, batch: str) -> str:
    median = cost.latency(batch)
    return "–" if median is None else Exact(_short(median), {"": median, "p95": cost.latency(batch, "p95_ms") or 0.0})


def _p95(cost: Cost, batch: str) -> str:
    value = cost.latency(batch, "p95_ms")
    return "–" if value is None else Exact(_short(value), {"": value})


def _memory(cost: Cost) -> str:
    by_batch = {at: held for at in BATCHES if (held := cost.memory(at)) is not None}
    parts = {f"bytes @{at}": held for at, held in by_batch.items()}
    return Exact(console.size(by_batch[BATCHES[-1]]), parts) if parts else "–"


def _factors(cost: Cost, against: Cost | None) -> list[str]:
    factors = [factor(against, cost, lambda cost: cost.parameters)]
    factors += [factor(against, cost, partial(Cost.latency, batch=at)) for at in BATCHES]
    return ["–" if value is None else Exact(_short(value), {"": value}) for value in factors]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _notes(costs: Sequence[Cost]) -> list[str]:
    notes = [
        "MACs: multiply–add pairs of convolutions and matrix products for one image, by torch's FlopCounterMode "
        "(FLOPs: twice that); biases, normalisation and element-wise work are not counted"
    ]
    timed = [cost.timed for cost in costs if cost.timed is not None]
    by_machine = {json.dumps(machine_of(measured)): measured for measured in timed}
    for measured in by_machine.values():
        settings, threads = measured["settings"], measured["settings"]["threads"]
        runs = " and ".join(str(measured["latency"][at]["runs"]) for at in BATCHES)
        cpu = settings["kind"] == "cpu"
        on = settings["device"] + (f", {threads} thread{'s'[: threads != 1]}" if cpu else "")
        scratch = "without scratch memory inside of kernels" if cpu else "with the workspaces of its libraries"
        notes.append(
            f"ms: a forward pass of 1 and of 128 images on {on}, {settings['precision']}, torch {settings['torch']}: "
            f"median and 95th percentile of up to {runs} runs after warm-up, networks taking turns; memory: weights, "
            f"images and tensors alive at once at batch 128, {scratch}"
        )
    if len({(measured["sitting"], json.dumps(machine_of(measured))) for measured in timed}) > len(by_machine):
        notes.append(
            "not all were timed in one session, so small factors may be noise: kdrun evaluate RUN cost=true "
            "times a run's networks together"
        )
    return notes
