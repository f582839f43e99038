"""What `kdrun evaluate` measures on all networks of a run: accuracy, and robustness if it is chosen.

Robustness is saved with each network (`measuring/cache.py`), so that the next evaluation reuses it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from kdrun import console, memory
from kdrun.artifact import Artifact
from kdrun.config import Robustness
from kdrun.console import bars_off
from kdrun.data.sets import Dataset, FileSet, ImageSet
from kdrun.measuring import conditions, robustness
from kdrun.measuring.attacks import Classify
from kdrun.measuring.cache import cache, cached
from kdrun.memory import OutOfMemory
from kdrun.records import RunJson
from kdrun.results.runs import called
from kdrun.signals import StopFlag
from kdrun.training import devices
from kdrun.training.measure import measure_images
from kdrun.training.networks import load_model

log = logging.getLogger(__name__)
LINE_SECONDS = 30.0  # at least this long between two progress lines, where no bar is shown


def measure_accuracy(
    artifacts: Sequence[Artifact],
    record: RunJson,
    dataset: Dataset,
    device: torch.device,
    batch_size: int,
    stop: StopFlag,
) -> Iterator[list[str]]:
    """Yield a table row for each network: its accuracy now, and the difference from the recorded accuracy."""
    bar = tqdm(artifacts, desc="measuring", unit="net", leave=False, disable=bars_off())
    for used, artifact in zip(record["artifacts"], bar, strict=True):
        name = [called(used)[0], str(used["seed"]), used["fingerprint"]]
        other = artifact.spec.data["digest"] != dataset.digest
        if other or not artifact.finished or artifact.spec.answered:
            why = "trained on other data, or its data have changed" if other else artifact.result["status"]
            why = "a file of answers to training images, no network" if artifact.spec.answered else why
            yield [*name, why, "–", "–", "–"]
            continue
        model, spec = load_model(artifact, device), artifact.spec
        test = measure_images(model, dataset.test, spec, device, stop, batch_size=batch_size)
        val = "–"
        if (
            dataset.val is not None
            and artifact.result["selected"]["val"] is not None
            and all(spec.data[key] == record["config"]["dataset"].get(key) for key in ("val_fraction", "split_seed"))
        ):  # else it may have trained on these images
            held_out = measure_images(model, dataset.val, spec, device, stop, batch_size=batch_size)
            val = f"{100 * held_out.accuracy:.2f}"
        change = test.accuracy - artifact.result["selected"]["test"]["accuracy"]
        yield [*name, val, f"{100 * test.accuracy:.2f}", f"{test.nll:.4f}", f"{100 * change:+.2f}"]


def measure_robustness(
    artifacts: Sequence[Artifact],
    images: ImageSet | FileSet,
    data: str,
    how: Robustness,
    device: torch.device,
    batch_size: int,
    stop: StopFlag,
    *,
    force: bool = False,
) -> None:
    """Measure networks on the same corrupted images and under attacks, and save the numbers with each network.

    `data` is the digest of the images' data set; if it changes, everything is measured again. Each family is saved when
    it is complete, so that an interrupted measurement resumes there. Saved numbers are reused unless `force` is set.
    Raise Interrupted if a signal came, RunFailed if memory runs out.
    """
    settings = conditions.settings(how, data)
    subjects = {artifact.fingerprint: artifact for artifact in artifacts}
    entries = {name: None if force else cached(a.folder, "robustness", settings) for name, a in subjects.items()}
    accuracy: dict[str, dict[str, Any]] = {n: dict((entry or {}).get("accuracy", {})) for n, entry in entries.items()}
    todo = {
        family: missing
        for family in conditions.families(how)
        if (missing := [name for name, own in accuracy.items() if family in conditions.missing(own, how)])
    }
    if not todo:
        log.info("robustness: already measured for all %d networks", len(subjects))
        return
    measured_now = set[str]().union(*todo.values())
    with console.busy("loading the networks"):
        networks = {name: classifier(a, device) for name, a in subjects.items() if name in measured_now}
    kinds = {"corruptions": conditions.CLEAN, "attacks": conditions.ATTACKS[0]}
    counts = {kind: len(robustness.chosen(images.labels, family, how)) for kind, family in kinds.items()}
    images_per_pass = {family: counts["attacks" if family in conditions.ATTACKS else "corruptions"] for family in todo}
    total = sum(conditions.passes(family, how) * images_per_pass[family] * len(todo[family]) for family in todo)
    line_due = time.monotonic() + LINE_SECONDS
    with progress(total, " img") as bar, enough_memory(batch_size):

        def tick(done: int) -> None:
            bar.update(done)
            stop.check()

        for family, missing in todo.items():
            bar.set_description_str(f"robustness, {family}")
            measured = robustness.measure(
                family,
                how,
                {name: networks[name] for name in missing},
                images,
                device=device,
                batch_size=batch_size,
                tick=tick,
            )
            for name in missing:
                accuracy[name][family] = measured[name]
                content = {
                    "complete": not conditions.missing(accuracy[name], how),
                    "device": devices.describe(device),
                    "images": counts | {"test": int((images.labels >= 0).sum())},
                    "accuracy": accuracy[name],
                }
                cache(subjects[name].folder, "robustness", settings, content)
            summary = f"{len(missing)} network{'s'[: len(missing) != 1]}, {images_per_pass[family]:,} images"
            level = console.DETAIL if (now := time.monotonic()) < line_due else logging.INFO
            line_due = line_due if level == console.DETAIL else now + LINE_SECONDS
            log.log(level, "robustness, %s: %s", family, summary, extra={"shown_by_bar": True})


def classifier(artifact: Artifact, device: torch.device) -> Classify:
    """Return a network as a function from pixels in [0, 1] to logits, through which gradients pass to the pixels."""
    spec = artifact.spec
    mean, std = (torch.tensor(spec.data[key], device=device).view(1, -1, 1, 1) for key in ("mean", "std"))
    network = load_model(artifact, device).eval().requires_grad_(False)

    def classify(pixels: Tensor) -> Tensor:
        devices.set_float32(spec.precision)
        with devices.autocast(spec.precision, device):
            normal = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
            logits: Tensor = network.forward(normal).logits
        return logits.float()

    return classify


def progress(total: int, unit: str) -> Any:
    """Return a progress bar, disabled without a terminal or if several cells share one."""
    return tqdm(total=total, unit=unit, unit_scale=unit == " img", leave=False, dynamic_ncols=True, disable=bars_off())


@contextmanager
def enough_memory(batch_size: int, *, fixed: bool = False) -> Iterator[None]:
    """Raise OutOfMemory, with a message that says what to type, if memory runs out."""
    try:
        yield
    except Exception as error:
        if not memory.ran_out(error):
            raise
        remedy = "type device=cpu" if fixed else f"type batch_size={max(1, batch_size // 2)}, or device=cpu"
        raise OutOfMemory(f"out of memory with {batch_size} images at once; {remedy}") from error
