"""The check of an exported file against its network on all test images: logits, accuracy, latency."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from kdrun.artifact import Artifact
from kdrun.console import bars_off, busy, size
from kdrun.data.batches import slices
from kdrun.data.sets import FileSet, ImageSet
from kdrun.export.network import Trained
from kdrun.export.parity import TIE, TOLERANCE, Parity, compare
from kdrun.export.read import open_exported, through_torch
from kdrun.measuring.cost import PLANS, latencies
from kdrun.results.tables import Table
from kdrun.spec import finite
from kdrun.training import devices
from kdrun.training.networks import on_device


@dataclass(frozen=True)
class Check:
    """All measurements of an exported file."""

    parity: Parity
    latency: dict[int, dict[str, dict[str, float]]]  # batch size -> "network" and "file" -> milliseconds
    recorded: float | None  # test accuracy, measured after training
    bytes: tuple[int, int]  # of the weights in the store, and of the file
    runtimes: tuple[str, str]
    device: str
    threads: int

    def data(self) -> Any:
        """Return all measurements as JSON."""
        sides = ("network", "file")
        return finite({
            **asdict(self.parity), "problem": self.parity.problem, "tolerance": TOLERANCE * self.parity.spread,
            "recorded_accuracy": self.recorded, "latency_ms": {str(k): v for k, v in self.latency.items()},
            "bytes": dict(zip(sides, self.bytes, strict=True)), "runtime": dict(zip(sides, self.runtimes, strict=True)),
            "device": self.device, "threads": self.threads,
        })  # fmt: skip

    def table(self, file: str) -> Table:
        """Return the table that compares the network with the file."""
        parity = self.parity
        rows = [
            ["test accuracy %", f"{100 * parity.accuracy:.2f}", f"{100 * parity.file_accuracy:.2f}"],
            ["images classified differently", "–", f"{parity.changed} of {parity.images:,}"],
            ["largest deviation of a logit", "–", f"{parity.deviation:.1e}"],
            ["spread of the logits", f"{parity.spread:.3g}", "–"],
            ["size", *(size(count) for count in self.bytes)],
        ]
        for batch, both in self.latency.items():
            cells = [f"{ms['median_ms']:.3g} ({ms['p95_ms']:.3g})" for ms in both.values()]
            rows.append([f"latency of {batch} image{'s'[: batch != 1]}, ms (p95)", *cells])
        threads = f"{self.threads} thread{'s'[: self.threads != 1]}"
        notes = [
            f"on {self.device}, {threads}; latency: median and 95th percentile, from pixels to logits in memory",
            f"allowed deviation: {TOLERANCE:g} of the spread (standard deviation) of the logits",
        ]
        if self.recorded is not None:
            notes.append(f"test accuracy recorded in training: {100 * self.recorded:.2f}%")
        if parity.undecided:
            notes.append(
                f"{parity.undecided} of those classified differently are ties: their two best logits lie within "
                f"{TIE:g} of "
                "the spread"
            )
        return Table(["", f"network ({self.runtimes[0]})", f"{file} ({self.runtimes[1]})"], rows, notes=notes)


def check(
    file: Path, network: Trained, artifact: Artifact, test: ImageSet | FileSet, *, device: torch.device,
    batch_size: int,
) -> Check:  # fmt: skip
    """Check a file against the network it was exported from. Raise ValueError if the file cannot be read back."""
    devices.set_float32("fp32")
    threads = torch.get_num_threads()
    exported = open_exported(file, str(device), threads)
    own = through_torch(on_device(network, device), device)
    logits: tuple[list[NDArray[np.floating]], list[NDArray[np.floating]]] = ([], [])
    labels, first = [], None
    with tqdm(total=len(test), desc=f"checking {file.name}", unit="image", leave=False, disable=bars_off()) as bar:
        for pixels, known in _batches(test, batch_size):
            first = pixels[:1] if first is None else first
            logits[0].append(own(pixels))
            logits[1].append(exported.classify(pixels))
            labels.append(known)
            bar.update(len(pixels))
    assert first is not None
    latency = {}
    for plan in PLANS:
        pixels = np.repeat(first, plan.batch, axis=0)
        calls = {"network": partial(own, pixels), "file": partial(exported.classify, pixels)}
        with busy(f"timing batches of {plan.batch}"):  # its thread wakes too rarely to change a median
            latency[plan.batch] = latencies(calls, warmup=plan.warmup, runs=plan.runs, seconds=plan.seconds)
    return Check(
        parity=compare(np.concatenate(logits[0]), np.concatenate(logits[1]), np.concatenate(labels)),
        latency=latency,
        recorded=artifact.accuracy("test"),
        bytes=(int(artifact.result["bytes"]), file.stat().st_size),
        runtimes=(f"torch {torch.__version__}", exported.runtime),
        device=devices.describe(device),
        threads=threads,
    )


def _batches(images: ImageSet | FileSet, batch_size: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.integer]]]:
    """Yield the pixels (N, C, H, W) and labels (N,) of a set, in its order."""
    order = torch.arange(len(images))
    for stored in images.stored([order[place] for place in slices(len(images), batch_size)], torch.device("cpu")):
        yield stored.images.contiguous().numpy(), stored.labels.numpy()
