"""What remembering the teacher's logits saves: steps of distillation against plain training, and whole trainings.

    python benchmarks/table.py [--rounds N] [--batches N] [--json FILE] [--device cpu|cuda]

resnet32x4 teaches resnet8x4 on synthetic images of CIFAR-100's shape, batch 64, fp32, under two augmentations: crops
with a padding of 4 and mirroring (162 views of an image), and function matching with four views. Each is timed without
a table, with every row in a table, and with every row missing (the images are rendered, the teacher runs, the rows are
written and read). Everything is timed once per round, in an order drawn for each round, because a loop finds the caches
as the one before left them; numbers are medians, ratios are taken within a round. Plain training is timed twice: by how
much the second ratio differs from 1 is the error of the others. The teacher's part of a step, its forward pass or the
lookup in its table, is timed within the same steps.

From these a whole training of 240 epochs is simulated: with V views and E epochs, those of all seeds together, the
share V·(1 − (1 − 1/V)^E) / E of the rows is computed, so that a step costs full + share · (filling − full). Run it on
a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sweep import BATCH, PAIRS, student

from kdrun.augment import Pipeline
from kdrun.augment.crop_flip import CropFlip
from kdrun.augment.mixup import Mixup
from kdrun.data.batches import Batches
from kdrun.data.sets import ImageSet
from kdrun.results.tables import Table as Printed
from kdrun.training import devices
from kdrun.training.cohort import Unit
from kdrun.training.table import Place, Table, expected_share
from kdrun.training.teaching import Teaching

WITHIN = 0.05  # of plain training, once the table is filled
EPOCHS = 240
LIMITS = {1: 1.35, 6: 1.9}  # seeds: how much faster a whole training with crops has to be
HARD: dict[str, Any] = {"ce": {"use": "ce.CE", "weight": 1.0}}
SOFT: dict[str, Any] = {"ce": {"use": "ce.CE", "weight": 0.1}, "kd": {"use": "kd.KD", "weight": 0.9, "T": 4.0}}
CROPS = Pipeline([CropFlip(4, True)])
MATCHING = Pipeline([CropFlip(4, True)], [Mixup()], views=4)


@dataclass
class Loop:
    """One way to train, whose epochs are timed."""

    unit: Unit
    batches: Batches
    teaching: Teaching | None = None
    emptied: bool = False  # forget every row before an epoch
    part: float = 0.0  # the seconds of the last epoch that the teacher took

    def seconds(self, device: torch.device) -> float:
        """Return the seconds of an epoch."""
        table = self.teaching.tables[0] if self.teaching else None
        if table is not None and self.emptied:
            table.known.zero_()
        _wait(device)
        self.part, started = 0.0, time.perf_counter()
        if self.teaching:
            self.teaching.begin(0, 0)
            self.part += time.perf_counter() - started
        for number, batch in enumerate(self.batches.epoch(0)):
            asked = time.perf_counter()
            outputs = self.teaching.teacher_outputs(batch, number, logits_only=True) if self.teaching else []
            self.part += time.perf_counter() - asked
            self.unit.step(batch, outputs)
        _wait(device)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device, pair = torch.device(args.device), PAIRS[1]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (args.batches * BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, pair.classes, (len(pixels),), generator=generator)
    teacher = pair.network(pair.teacher, device).to(memory_format=torch.channels_last).requires_grad_(False).eval()
    loops: dict[str, Loop] = {}
    for name, augmentation in (("crops", CROPS), ("function matching, 4 views", MATCHING)):
        batches = Batches(
            ImageSet(pixels, labels), batch_size=BATCH, seed=0, augmentation=augmentation, mean=[0.5] * 3,
            std=[0.25] * 3, device=device,
        )  # fmt: skip

        def teaching(batches: Batches = batches, *, table: bool) -> Teaching:
            forms = batches.augmentation.form_count or 1
            tables = [Table(forms, len(pixels), Place(device))] if table else []
            return Teaching([teacher], batches, precision="fp32", device=device, tables=tables)

        for again in ("", " again"):
            loops[f"{name}: plain training{again}"] = Loop(student("student", pair, HARD, device), batches)
        loops[f"{name}: no table"] = Loop(student("student", pair, SOFT, device), batches, teaching(table=False))
        full = Loop(student("student", pair, SOFT, device), batches, teaching(table=True))
        full.seconds(device)  # computes the rows that epoch 0 shows
        loops[f"{name}: full table"] = full
        filling = Loop(student("student", pair, SOFT, device), batches, teaching(table=True), emptied=True)
        loops[f"{name}: every row missing"] = filling

    load, order = os.getloadavg()[0], random.Random(0)
    took: dict[str, list[float]] = {name: [] for name in loops}
    parts: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(args.rounds + 1):
        for name in order.sample(list(loops), len(loops)):
            loop = loops[name]
            seconds = loop.seconds(device)
            if number:
                took[name].append(seconds)
                parts[name].append(loop.part / seconds)

    rows, ratios = [], {}
    for name, values in took.items():
        plain = took[f"{name.partition(':')[0]}: plain training"]
        within = [a / b for a, b in zip(plain, values, strict=True)]
        ratios[name] = statistics.median(within)
        speed = len(pixels) / statistics.median(values)
        spread = f"({min(within):.2f}–{max(within):.2f})"
        rows.append([name, f"{speed:.0f}", f"{ratios[name]:.2f} {spread}", f"{statistics.median(parts[name]):.2%}"])
    simulated = {
        f"{name}, {seeds} seed{'s'[: seeds != 1]}": statistics.median(
            bare / (full + expected_share(forms, seeds * EPOCHS) * (missing - full))
            for bare, full, missing in zip(
                *(took[f"{name}: {kind}"] for kind in ("no table", "full table", "every row missing")), strict=True
            )
        )
        for name, forms in (("crops", 162), ("function matching, 4 views", 4))
        for seeds in LIMITS
    }
    notes = [
        f"limits: with a full table within {100 * WITHIN:.0f}% of plain training; a whole training with crops "
        + " and ".join(f"{limit}× with {seeds} seed{'s'[: seeds != 1]}" for seeds, limit in LIMITS.items()),
        f"{devices.describe(device)}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, load before {load:.2f}, {args.rounds} rounds",
    ]
    print(
        Printed(
            ["loop", "images/s", "step against plain", "teacher's part"], rows, "The teacher's logits remembered"
        ).to_text()
    )
    whole = [[name, f"{ratio:.2f}×"] for name, ratio in simulated.items()]
    heading = ["simulated", "faster than without a table"]
    print(Printed(heading, whole, f"A training of {EPOCHS} epochs, the filling of the table included", notes).to_text())
    if args.json:
        content = {"seconds": took, "parts": parts, "ratios": ratios, "simulated": simulated, "notes": notes}
        args.json.write_text(json.dumps(content, indent=2) + "\n")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
