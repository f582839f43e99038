"""What half precision and torch.compile gain: images per second, rounding of the teacher's logits, compile time.

    python benchmarks/compile.py [--rounds N] [--batches N] [--json FILE] [--device cpu|cuda]

resnet32x4 teaches resnet8x4 on synthetic images of CIFAR-100's shape, batch 64, by the code that `kdrun distill`
runs: in float32 and in bfloat16 (on a GPU also in TF32), each in eager mode and with compile=true. Rounds are
interleaved, gains are taken within a round against eager float32, and medians are printed. The compiler starts
with an empty cache, and its time does not count for the images per second.

The teacher has its initial weights and BatchNorm averages of eight batches: a trained one has other logits.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from step import BATCH, CLASSES, MEAN, STD, STUDENT, TEACHER, Task, kdrun_loop, network, seconds
from torch import Tensor

from kdrun.data.batches import in_order
from kdrun.data.sets import ImageSet
from kdrun.training import compiled, devices
from kdrun.training.compiled import compile_forward

KINDS = ("plain training", "distillation")
FIRST = "eager fp32"  # what the others are compared with


def variants(device: torch.device) -> dict[str, tuple[str, bool]]:
    """Return every way to compute by its name: its precision, and whether it is compiled."""
    precisions = ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16")
    ways = (("eager", False), ("compile", True))
    return {f"{way} {precision}": (precision, on) for way, on in ways for precision in precisions}


def images(count: int) -> tuple[Tensor, Tensor]:
    """Return random pixels and labels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(0, CLASSES, (count,), generator=generator)


@torch.no_grad()
def deviations(device: torch.device) -> dict[str, dict[str, float]]:
    """Return the largest deviation of the teacher's logits from eager float32's, absolute and relative to spread."""
    pixels, labels = images(8 * BATCH)
    batches = list(in_order(ImageSet(pixels, labels), batch_size=BATCH, mean=MEAN, std=STD, device=device))
    teacher = network(TEACHER, device).to(memory_format=torch.channels_last).requires_grad_(False)
    for part in teacher.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 0.5  # so that eight batches are enough
    for batch in batches:
        teacher.train()(batch.images)
    compile_forward(teacher.eval())
    found: dict[str, Tensor] = {}
    for name, (precision, on) in variants(device).items():
        devices.set_float32(precision)
        run = teacher if on else teacher.forward
        with devices.autocast(precision, device):
            found[name] = torch.cat([run(batch.images).logits.double() for batch in batches])
    spread = found[FIRST].std().item()
    most = {name: (logits - found[FIRST]).abs().max().item() for name, logits in found.items()}
    return {name: {"largest": value, "of_their_spread": value / spread} for name, value in most.items()}


def measure(rounds: int, count: int, device: torch.device) -> dict[str, Any]:
    """Time every variant once per round, after rounds that compile and warm up."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    pixels, labels = images(count * BATCH)
    ways = variants(device)
    loops: dict[tuple[str, str], Task] = {
        (kind, name): kdrun_loop(pixels, labels, device, kind == "distillation", precision, on)
        for kind in KINDS
        for name, (precision, on) in ways.items()
    }
    first = {key: seconds(task, device) for key, task in loops.items()}  # a student is compiled once for both kinds
    took: dict[tuple[str, str], list[float]] = {key: [] for key in loops}
    for number in range(rounds + 1):
        for key, task in loops.items():
            took[key].append(seconds(task, device))
        if number == 0:
            for values in took.values():
                values.clear()
    result: dict[str, Any] = {
        "pair": f"{TEACHER} → {STUDENT}",
        "batch_size": BATCH,
        "rounds": rounds,
        "batches": count,
        "device": devices.describe(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "native_bf16": devices.resolve_precision("auto", device) == "bf16",
        "load_before": load,
    }
    for kind in KINDS:
        result[kind] = {name: _row(took[kind, name], took[kind, FIRST], count * BATCH) for name in ways}
    result["compile_seconds"] = {
        name: {
            part: round(first[kind, name] - statistics.median(took[kind, name]), 1)
            for part, kind in zip(("student", "teacher"), KINDS, strict=True)
        }
        for name, (_, on) in ways.items()
        if on
    }
    result["teacher_logits"] = deviations(device)
    return result


def _row(took: list[float], first: list[float], count: int) -> dict[str, Any]:
    gains = [a / b for a, b in zip(first, took, strict=True)]
    return {
        "images_per_second": statistics.median(count / t for t in took),
        "gain": statistics.median(gains),
        "per_round": {"images_per_second": [count / t for t in took], "gain": gains},
    }


def table(result: dict[str, Any]) -> Iterator[str]:
    """Yield the result line by line."""
    yield (
        f"{result['pair']}, batch {result['batch_size']}, {result['device']}, {result['threads']} threads, "
        f"torch {result['torch']}; medians of {result['rounds']} rounds of {result['batches']} batches"
    )
    yield ""
    yield f"{'':<14}{'plain training':>24}{'distillation':>24}   teacher's logits move by  compile, student + teacher"
    for name in result[KINDS[0]]:
        cells = ""
        for kind in KINDS:
            row = result[kind][name]
            gains = row["per_round"]["gain"]
            cells += f"{row['images_per_second']:>8.0f} {row['gain']:.2f}× ({min(gains):.2f}–{max(gains):.2f})".rjust(
                24
            )
        moved = result["teacher_logits"][name]
        took = result["compile_seconds"].get(name)
        cost = f"{took['student']:.0f} s + {took['teacher']:.0f} s" if took else "–"
        yield f"{name:<14}{cells}{moved['largest']:>14.2g} ({moved['of_their_spread']:.2g} σ){cost:>22}"
    if not result["native_bf16"]:
        yield "This machine computes bfloat16 by emulation."
    if (result["load_before"] or 0) > 0.3:
        yield f"The machine was busy before (load {result['load_before']:.1f}): compare gains, not images per second."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after two that compile and warm up")
    parser.add_argument("--batches", type=int, default=8, help="batches of 64 images per round and variant")
    parser.add_argument("--json", type=Path, help="file for all raw numbers")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    asked = parser.parse_args()
    if asked.rounds < 1 or asked.batches < 1:
        parser.error("--rounds and --batches must be at least 1")
    try:
        device = devices.resolve_device(asked.device)
        compiled.check(device)
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        result = measure(asked.rounds, asked.batches, device)
    print("\n".join(table(result)))
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nall numbers: {asked.json}")


if __name__ == "__main__":
    main()
