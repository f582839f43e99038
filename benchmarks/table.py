"""What remembering the teacher's logits saves: a distillation step with a full table against plain training.

    python benchmarks/table.py [--rounds N] [--batches N] [--json FILE] [--device cpu|cuda]

resnet32x4 teaches resnet8x4 on synthetic images of CIFAR-100's shape with flips alone, batch 64, fp32: the
teacher computes both forms of every image once, and from then on a step reads them. Everything is timed once
per round; numbers are medians, ratios are taken within a round. Run it on a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from sweep import BATCH, PAIRS, student

from kdrun.augment import Pipeline
from kdrun.augment.crop_flip import CropFlip
from kdrun.data.batches import Batches
from kdrun.data.sets import ImageSet
from kdrun.results.tables import Table as Printed
from kdrun.training import devices
from kdrun.training.cohort import Unit
from kdrun.training.table import Place, Table
from kdrun.training.teaching import Teaching

WITHIN = 0.05  # of plain training, once the table is filled
HARD: dict[str, Any] = {"ce": {"use": "ce.CE", "weight": 1.0}}
SOFT: dict[str, Any] = {"ce": {"use": "ce.CE", "weight": 0.1}, "kd": {"use": "kd.KD", "weight": 0.9, "T": 4.0}}


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
    batches = Batches(
        ImageSet(pixels, labels),
        batch_size=BATCH,
        seed=0,
        augmentation=Pipeline([CropFlip(0, True)]),
        mean=[0.5] * 3,
        std=[0.25] * 3,
        device=device,
    )
    teachers = [pair.network(pair.teacher, device).to(memory_format=torch.channels_last).requires_grad_(False).eval()]
    plain = Teaching(teachers, batches, precision="fp32", device=device)
    table = Teaching(teachers, batches, precision="fp32", device=device, tables=[Table(2, len(pixels), Place(device))])
    loops = {
        "plain training": (student("student", pair, HARD, device), None),
        "distillation, table": (student("student", pair, SOFT, device), table),
        "distillation": (student("student", pair, SOFT, device), plain),
    }
    for epoch in range(20):  # after which hardly any form is missing
        table.begin(epoch, 0)
        for number, batch in enumerate(batches.epoch(epoch)):
            table.teacher_outputs(batch, number, logits_only=True)
    table.begin(0, 0)

    def seconds(unit: Unit, teaching: Teaching | None) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        for number, batch in enumerate(batches.epoch(0)):
            unit.step(batch, teaching.teacher_outputs(batch, number, logits_only=True) if teaching else [])
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    load = os.getloadavg()[0]
    speed: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(args.rounds + 1):
        for name, (unit, teaching) in loops.items():
            took = seconds(unit, teaching)
            if number:
                speed[name].append(len(pixels) / took)
    ratios = {
        name: statistics.median(a / b for a, b in zip(speed["plain training"], values, strict=True))
        for name, values in speed.items()
    }
    rows = [[name, f"{statistics.median(values):.0f}", f"{ratios[name]:.2f}"] for name, values in speed.items()]
    notes = [
        f"limit: a step with a full table within {100 * WITHIN:.0f}% of plain training's",
        f"the table: 2 forms × {len(pixels):,} images × {pair.classes} classes, here; {2 * 50_000 * 100 * 4 / 1e6:.0f} "
        "MB for CIFAR-100's 50,000",
        f"{devices.describe(device)}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, load before {load:.2f}, {args.rounds} rounds",
    ]
    heading = ["loop", "images/s", "step against plain"]
    print(Printed(heading, rows, "The teacher's logits remembered", notes).to_text())
    if args.json:
        args.json.write_text(json.dumps({"speed": speed, "ratios": ratios, "notes": notes}, indent=2) + "\n")


if __name__ == "__main__":
    main()
