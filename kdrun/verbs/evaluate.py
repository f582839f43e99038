"""kdrun evaluate: every network of a finished run, measured again from its weights on its own data."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from kdrun import data
from kdrun.console import bars_off
from kdrun.results.collect import find_run
from kdrun.results.runs import called
from kdrun.results.tables import Table
from kdrun.store import Artifact, RunFailed, Store, write_atomic
from kdrun.training import devices
from kdrun.training.finish import Finisher
from kdrun.training.networks import load_model, on_device
from kdrun.training.stop import StopFlag
from kdrun.verbs.session import Run, task

log = logging.getLogger(__name__)


@task
def main(cfg: DictConfig, run: Run) -> None:
    """Measure all of a run's networks on validation and test data, beside what was recorded then."""
    folder = find_run(str(cfg.run), Path(cfg.outputs))
    record = _record(folder)
    device = devices.resolve_device(cfg.device)
    store = Store(Path(cfg.outputs).expanduser() / "store")
    node = dict(record["config"]["dataset"])
    dataset = data.load(node.pop("use"), name=record["choices"]["dataset"], **node)
    rows = []
    with StopFlag() as stop:
        finisher = Finisher(device, stop, command=run.record["command"])
        for used in tqdm(record["artifacts"], desc="measuring", unit="net", leave=False, disable=bars_off()):
            artifact = store.find(used["fingerprint"])
            if artifact is None:
                raise ValueError(
                    f"{used['folder']} is no longer in {store.root}; type its command again: {record['command']}"
                )
            run.use(used["role"], artifact, label=used.get("label", ""), lane=used.get("lane", ""))
            name = [called(used)[0], str(used["seed"]), used["fingerprint"]]
            if artifact.spec.data["digest"] != dataset.digest:
                rows.append([*name, "made on other data, or its data have changed", "–", "–", "–"])
                continue
            if not artifact.finished:
                rows.append([*name, artifact.result["status"], "–", "–", "–"])
                continue
            model = on_device(load_model(artifact), device)
            test = finisher.measure(model, dataset.test, artifact.spec, cfg.batch_size)
            val = "–"
            if (
                dataset.val is not None
                and artifact.result["selected"]["val"] is not None
                and _same_split(artifact, node)
            ):
                val = f"{100 * finisher.measure(model, dataset.val, artifact.spec, cfg.batch_size).accuracy:.2f}"
            change = test.accuracy - artifact.result["selected"]["test"]["accuracy"]
            rows.append([*name, val, f"{100 * test.accuracy:.2f}", f"{test.nll:.4f}", f"{100 * change:+.2f}"])
    note = f"{len(dataset.test):,} test images, on {devices.describe(device)}; Δ: against the record"
    table = Table(["role", "seed", "fingerprint", "val %", "test %", "test NLL", "Δ test"], rows, notes=[note])
    write_atomic(run.folder / "evaluation.md", table.to_markdown().encode())
    write_atomic(run.folder / "evaluation.csv", table.to_csv().encode())
    print(table.to_text())
    print(f"\nresults: {run.folder}")
    if not rows:
        raise RunFailed(f"{cfg.run} has no networks: it {record['status']}")


def _same_split(artifact: Artifact, settings: dict[str, Any]) -> bool:
    """Say whether a network held out the images that are held out here; else it may have trained on them."""
    held = artifact.spec.data
    return all(held[key] == settings[key] for key in ("val_fraction", "split_seed"))


def _record(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no readable run.json: {error}") from None
    if record["verb"] == "evaluate":
        raise ValueError(f"{folder.name} is itself an evaluation; name the run that trained (kdrun runs lists them)")
    return record
