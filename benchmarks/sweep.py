"""How much a sweep gains by sharing batches and the teacher: K students in one cohort against one after the other.

    python benchmarks/sweep.py [--rounds N] [--batches N] [--json FILE] [--device cpu|cuda]

The law is K(T + S) / (T + K·S), with T the time of the teacher's forward pass on a batch and S that of a
student's step, both measured here: the cohort pays for the teacher once. Students differ in temperature;
images are synthetic, of CIFAR-100's and of Fashion-MNIST's shape, batch 64, fp32. All are timed once per round,
and each number is the median over rounds. Run it on a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from kdrun import losses, models
from kdrun.augment import Pipeline
from kdrun.augment.crop_flip import CropFlip
from kdrun.config import CONF, Recipe
from kdrun.data.batches import Batches
from kdrun.data.sets import ImageSet
from kdrun.results.tables import Table
from kdrun.training import devices
from kdrun.training.cohort import Unit
from kdrun.training.learner import Learner
from kdrun.training.teaching import Teaching

BATCH = 64
KS = (1, 4, 8)
WITHIN = 0.15  # of the law


@dataclass(frozen=True)
class Pair:
    """A teacher and a student, and the images they see: classes, channels, side."""

    teacher: str
    student: str
    classes: int
    channels: int
    side: int

    def network(self, name: str, device: torch.device) -> nn.Module:
        """Return one of the two networks with its initial weights, as its YAML describes it."""
        node: Any = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{name}.yaml"))
        built = models.build(
            **node,
            num_classes=self.classes,
            in_channels=self.channels,
            image_size=(self.side, self.side),
            mean=[0.5] * self.channels,
            std=[0.25] * self.channels,
            seed=0,
        )
        return built.to(device)


PAIRS = (Pair("fashion_resnet", "fashion_cnn", 10, 1, 28), Pair("resnet32x4", "resnet8x4", 100, 3, 32))


def student(name: str, pair: Pair, terms: dict[str, Any], device: torch.device) -> Unit:
    """Return a student with these loss terms."""
    return Unit(
        [
            Learner(
                name,
                pair.network(pair.student, device),
                losses.build(terms),
                asdict(Recipe(epochs=1, lr=1e-3)),
                steps_per_epoch=10**5,
                seed=0,
                precision="fp32",
                device=device,
            )
        ]
    )


class Sweep:
    """One pair with its batches, teacher and students, to be timed in cohorts of any size."""

    def __init__(self, pair: Pair, count: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (count * BATCH, pair.channels, pair.side, pair.side)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, pair.classes, shape[:1], generator=generator)
        self.batches = Batches(
            ImageSet(pixels, labels),
            batch_size=BATCH,
            seed=0,
            augmentation=Pipeline([CropFlip(4, True)]),
            mean=[0.5] * pair.channels,
            std=[0.25] * pair.channels,
            device=device,
        )
        teacher = pair.network(pair.teacher, device).to(memory_format=torch.channels_last)
        teachers = [teacher.requires_grad_(False).eval()]
        self.teaching = Teaching(teachers, self.batches, precision="fp32", device=device)
        self.units = [self._student(pair, 1.0 + k, device) for k in range(max(KS))]
        self.device, self.count = device, count

    def _student(self, pair: Pair, T: float, device: torch.device) -> Unit:
        terms = {"ce": {"use": "ce.CE", "weight": 0.1}, "kd": {"use": "kd.KD", "weight": 0.9, "T": T}}
        return student(f"T={T:g}", pair, terms, device)

    def cohort(self, k: int) -> float:
        """Return the seconds per batch with k students."""
        started = self._now()
        for number, batch in enumerate(self.batches.epoch(0)):
            outputs = self.teaching.teacher_outputs(batch, number, logits_only=True)
            for unit in self.units[:k]:
                unit.step(batch, outputs)
        return (self._now() - started) / self.count

    def teacher(self) -> float:
        """Return the seconds per batch of the teacher's forward pass and of making the batch: a cohort shares both."""
        started = self._now()
        for number, batch in enumerate(self.batches.epoch(0)):
            self.teaching.teacher_outputs(batch, number, logits_only=True)
        return (self._now() - started) / self.count

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def measure(pair: Pair, rounds: int, count: int, device: torch.device) -> dict[str, Any]:
    """Time everything once per round, after one to warm up."""
    sweep = Sweep(pair, count, device)
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        found = {"teacher": sweep.teacher(), **{str(k): sweep.cohort(k) for k in KS}}
        for name, value in found.items() if number else ():
            seconds.setdefault(name, []).append(value)
    t = statistics.median(seconds["teacher"])
    s = statistics.median(one - teach for one, teach in zip(seconds["1"], seconds["teacher"], strict=True))
    gains = {
        k: statistics.median(k * one / many for one, many in zip(seconds["1"], seconds[str(k)], strict=True))
        for k in KS[1:]
    }
    law = {k: k * (t + s) / (t + k * s) for k in KS[1:]}
    return {"pair": asdict(pair), "T": t, "S": s, "gain": gains, "law": law, "per_round": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    load = os.getloadavg()[0]
    found = [measure(pair, args.rounds, args.batches, device) for pair in PAIRS]
    rows = [
        [
            f"{one['pair']['teacher']} → {one['pair']['student']}",
            str(k),
            f"{1000 * one['T']:.1f} ms",
            f"{1000 * one['S']:.1f} ms",
            f"{one['gain'][k]:.2f}×",
            f"{one['law'][k]:.2f}×",
            f"{100 * (one['gain'][k] / one['law'][k] - 1):+.0f}%",
        ]
        for one in found
        for k in KS[1:]
    ]
    notes = [
        "gain: K students one after the other against one cohort; T: teacher's forward with its batch, S: a step",
        f"limit: within {100 * WITHIN:.0f}% of the law K(T+S)/(T+KS)",
        f"{devices.describe(device)}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, load before {load:.2f}, {args.rounds} rounds of {args.batches} batches",
    ]
    print(Table(["pair", "K", "T", "S", "gain", "law", "off"], rows, "Sweeps as cohorts", notes).to_text())
    if args.json:
        args.json.write_text(json.dumps({"found": found, "notes": notes}, indent=2) + "\n")


if __name__ == "__main__":
    main()
