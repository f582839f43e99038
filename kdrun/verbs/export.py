"""kdrun export: write one network of a run to a file, and compare the file with the network."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kdrun import console, signals
from kdrun.artifact import Artifact
from kdrun.data.sets import FileSet, ImageSet
from kdrun.export.check import check
from kdrun.export.choose import Choice, choose
from kdrun.export.network import trained
from kdrun.export.sheet import Sheet
from kdrun.export.target import settle, unchecked
from kdrun.export.write import write
from kdrun.files import RunFailed
from kdrun.lifecycle.dataset import dataset_of
from kdrun.lifecycle.task import RunRecord, task
from kdrun.training import devices

log = logging.getLogger(__name__)


@task
def main(cfg: DictConfig, run: RunRecord) -> None:
    """Write the network, read it back, and compare the two on all test images."""
    outputs = Path(cfg.outputs)
    choice = choose(str(cfg.run), cfg.role, cfg.seed, outputs)
    artifact = choice.artifact(outputs)
    used = choice.used or {"role": artifact.result["role"]}
    run.use(used["role"], artifact, label=used.get("label", ""), lane=used.get("lane", ""))
    sheet = Sheet.of(artifact, cfg.format, choice.role)
    log.info("%s; %s", sheet.title, choice.reason)
    if choice.warning:
        log.warning("%s", choice.warning)
    device = devices.resolve_device(cfg.device)
    with console.busy("reading the test images"):
        test = _test_images(choice, artifact, cfg.dataset) if cfg.check else None
    folder = Path(os.path.relpath(run.folder) if cfg.to is None else cfg.to)
    checked = None
    with unchecked(folder) as made:
        with console.busy(f"writing {sheet.file}"):
            network = trained(artifact)
            file = write(network, sheet, made)
        if test is not None:
            try:
                checked = check(file, network, artifact, test, device=device, batch_size=cfg.batch_size)
            except ValueError as error:  # the file is wrong, not what was typed
                raise RunFailed(f"{file} was written, but does not run: {error}") from None
            print(checked.table(sheet.file).to_text("a wider terminal shows them") + "\n")
    with signals.holding():  # a half-written export would make the same command fail
        file = settle(folder, sheet, artifact, choice, checked)
    print(f"exported: {file}" + ("" if checked else ", not checked"))
    print(f"results: {folder}")


def _test_images(choice: Choice, artifact: Artifact, place: Any) -> ImageSet | FileSet:
    """Load the test images of the run's own data. Raise ValueError if they are unknown, or have changed."""
    if choice.run is None:
        raise ValueError(
            f"{choice.fingerprint}: no run here uses it, so its data are unknown; name its run, or type "
            "check=false to export it unchecked"
        )
    dataset = dataset_of(choice.run, place)
    if dataset.digest != artifact.spec.data["digest"]:
        raise ValueError(
            f"{dataset.name} is not what {choice.run.name} was trained on, or has changed since, so the export cannot "
            "be checked; type dataset.root=DIR (of a table: dataset.file=FILE) for the original data, or check=false"
        )
    return dataset.test
