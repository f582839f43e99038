"""kdrun evaluate: measure every network of a finished run again on the run's data."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from kdrun import config, console
from kdrun.artifact import Artifact, Unreadable
from kdrun.checks import no_room
from kdrun.files import RunFailed
from kdrun.lifecycle.costs import cost_devices, measure_cost
from kdrun.lifecycle.dataset import dataset_of
from kdrun.lifecycle.measurements import measure_accuracy, measure_robustness
from kdrun.lifecycle.task import RunRecord, task
from kdrun.plan.objective import plain
from kdrun.records import RunJson
from kdrun.results.cost_table import write_cost
from kdrun.results.robustness.table import write_robustness
from kdrun.results.runs import called
from kdrun.results.sweep.sweep import named_run
from kdrun.results.tables import Table, write_tables
from kdrun.signals import StopFlag
from kdrun.store import Store
from kdrun.training import devices

log = logging.getLogger(__name__)


@task
def main(cfg: DictConfig, run: RunRecord) -> None:
    """Measure all networks of a run again and compare with the record; on request, measure robustness and cost."""
    outputs = Path(cfg.outputs).expanduser()
    measured, how_chosen, warning = named_run(str(cfg.run), outputs)
    if how_chosen:
        log.info("%s", how_chosen)
    if warning:
        log.warning("%s", warning)
    record = measured.record
    device = devices.resolve_device(cfg.device)
    with console.busy("reading the data"):
        dataset = dataset_of(measured, cfg.dataset)
    with console.busy("reading the networks"):
        artifacts, unreadable = _artifacts(record, Store(measured.store(outputs)), run)
    record = {**record, "artifacts": [used for used in record["artifacts"] if used["fingerprint"] not in unreadable]}
    folders, able = [a.folder for a in artifacts], [a for a in artifacts if a.finished and not a.spec.answered]
    unchanged = [a for a in able if a.spec.data["digest"] == dataset.digest]
    if (
        typed := [f"dataset.{key}={place}" for key, place in cfg.dataset.items() if place is not None]
    ) and not unchanged:
        raise ValueError(f"{typed[0]}: no network of {cfg.run} was trained on the images there; name the original ones")
    if cfg.robustness is not None and not unchanged:
        raise ValueError(
            f"robustness: no network of {cfg.run} was trained on the present data of {dataset.name}, so there are no "
            f"test "
            "images to corrupt or attack"
        )
    if able and (cfg.robustness is not None or cfg.cost) and (why := no_room(able[0].folder.absolute() / "measured")):
        raise ValueError(
            f"robustness and cost are stored beside each network, but {why}; leave them out, or copy the run and its "
            "networks to another folder"
        )
    command = run.invocation.command
    with StopFlag() as stop:
        rows = list(measure_accuracy(artifacts, record, dataset, device, cfg.batch_size, stop))
        rows += [
            [called(used)[0], str(used["seed"]), used["fingerprint"], f"unreadable: {error.reason}", "–", "–", "–"]
            for used in measured.record["artifacts"]
            if (error := unreadable.get(used["fingerprint"]))
        ]
        note = (
            f"{len(dataset.test):,} test images, on {devices.describe(device)}; Δ: difference from the recorded value"
        )
        columns = ["role", "seed", "fingerprint", "val %", "test %", "test NLL", "Δ test"]
        write_tables(run.folder, "evaluation", table := Table(columns, rows, notes=[note]))
        texts = [table.to_text("evaluation.md has them")]
        if cfg.robustness is not None:
            how = config.Robustness(**plain(cfg.robustness))
            here = (dataset.test, dataset.digest)
            measure_robustness(unchanged, *here, how, device, cfg.batch_size, stop, force=cfg.force)
            with console.busy("comparing"):
                texts.append(write_robustness(run.folder, folders, record, how, command=command))
        if cfg.cost:
            machines = measure_cost(able, cost_devices(cfg.device, device), stop, force=cfg.force)
            with console.busy("comparing"):
                texts.append(write_cost(run.folder, folders, record, machines, command=command))
    print("\n\n".join(texts))
    print(f"\nresults: {run.folder}")
    if not rows:
        raise RunFailed(f"{cfg.run} has no networks; its status is {record['status']}")
    if unreadable:
        raise next(iter(unreadable.values()))


def _artifacts(record: RunJson, store: Store, run: RunRecord) -> tuple[list[Artifact], dict[str, Unreadable]]:
    """Return a run's networks in the order of its run.json, and errors by fingerprint for those that cannot be read.

    The networks are added to the record of `run`. Raise ValueError if one was removed, Unreadable if none can be read.
    """
    unreadable: dict[str, Unreadable] = {}
    for used in record["artifacts"]:
        try:
            artifact = store.find(used["fingerprint"])
        except Unreadable as error:
            unreadable[used["fingerprint"]] = error
            continue
        if artifact is None:
            raise ValueError(
                f"{used['folder']} is no longer in {store.root}; type its command again: {record['command']}"
            )
        run.use(used["role"], artifact, label=used.get("label", ""), lane=used.get("lane", ""))
    if unreadable and not run.artifacts:
        raise next(iter(unreadable.values()))
    return [artifact for _, artifact in run.artifacts], unreadable
