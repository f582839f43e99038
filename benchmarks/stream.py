"""Images per second from a folder of image files: kdrun's streaming beside a plain torchvision loop.

    python benchmarks/stream.py [--data DIR] [--images N] [--size PIXELS] [--format jpg|png] [--rounds N]
                                [--workers N] [--batch N] [--device cpu|cuda] [--json FILE]

The folder is made once, of pictures with the spectrum of photographs, and kept if --data names it. The plain
loop is ImageFolder with RandomCrop, RandomHorizontalFlip, ToTensor and Normalize behind a DataLoader with
persistent worker processes; kdrun's side is the code that `kdrun distill` runs on a folder that is too large for
memory, with as many workers. Both decode every image anew in every epoch. "loading" asks for the batches and
does nothing with them; "training" trains the same small network on them, with the same optimiser. Neither side
evaluates or writes checkpoints. kdrun's check of all files at the start of the first command is timed separately.
Both sides are in this one script, since only loops that take turns in one process can be compared.

Rounds of one epoch each are interleaved, so that a machine that slows down slows both sides; ratios are taken
within a round, and the median over rounds is printed. Run it on a machine with nothing else to do.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms as transforms
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from kdrun import losses, models
from kdrun.augment import Pipeline
from kdrun.augment.crop_flip import CropFlip
from kdrun.config import Recipe
from kdrun.data.batches import Batches
from kdrun.data.decoders import Workers
from kdrun.data.folder import folder
from kdrun.data.sets import Dataset, FileSet
from kdrun.signals import StopFlag
from kdrun.spec import Spec
from kdrun.store import Store
from kdrun.training.cohort import BatchTrained, CohortContext, LearnerDiverged, Unit, train
from kdrun.training.learner import Learner
from kdrun.training.progress import Bar
from kdrun.training.settings import Settings

CLASSES, PADDING, QUALITY = 10, 4, 90
SPECTRUM = ((3, 54.0), (6, 30.0), (12, 21.0), (24, 13.0), (48, 8.0))  # cells per side, and their contrast
NETWORK = {"use": "cnn.PlainCnn", "widths": [8, 16, 32, 64], "convolutions": 1, "dropout": 0.0}
LR, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
TIMES_THE_PLAIN_LOOP = 1.0  # the limit, for loading and for training

Task = Callable[[], None]


def picture(random: np.random.Generator, size: int) -> Image.Image:
    """Return a picture whose contrast falls with frequency, as in photos: noise at several scales and per pixel."""
    pixels = random.normal(120, 2.5, (size, size, 3))
    for cells, contrast in SPECTRUM:
        noise = random.normal(size=(cells, cells, 3))
        noise = 0.5 * noise + 0.9 * noise.mean(2, keepdims=True)  # colours vary less than brightness
        for channel in range(3):
            grid = Image.fromarray(noise[..., channel].astype(np.float32))
            pixels[..., channel] += contrast * np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make(root: Path, images: int, size: int, suffix: str) -> None:
    """Write train/CLASS/* with `images` pictures, and a small test/, unless they are there."""
    done = root / "made.json"
    asked = {"images": images, "size": size, "format": suffix, "version": 1}
    if done.is_file():
        if json.loads(done.read_text()) != asked:
            raise SystemExit(f"{root} holds other pictures ({done.read_text().strip()}); name another --data")
        return
    random = np.random.default_rng(0)
    for part, count in (("train", images), ("test", 10 * CLASSES)):
        for number in range(count):
            place = root / part / f"class{number % CLASSES}" / f"{number:06d}.{suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            picture(random, size).save(place, **({"quality": QUALITY} if suffix == "jpg" else {}))
    done.write_text(json.dumps(asked) + "\n")


def streamed(root: Path) -> Dataset:
    """Open the folder as kdrun opens one that is too large for memory."""
    return folder(
        name="stream",
        root=str(root),
        size=None,
        channels=None,
        on_bad_image="stop",
        max_resident_gb=0.0,
        val_fraction=0.0,
        split_seed=0,
        augmentation=Pipeline([CropFlip(PADDING, True)]),
    )


def network(dataset: Dataset, device: torch.device) -> nn.Module:
    """Return the small network with its initial weights; it is so cheap that reading files is most of the work."""
    built = models.build(**NETWORK, num_classes=CLASSES, in_channels=3, image_size=dataset.image_size, seed=0)
    return built.to(device)


def plain_loops(root: Path, dataset: Dataset, asked: argparse.Namespace, device: torch.device) -> dict[str, Task]:
    """Return functions for an epoch of loading and one of training in the plain loop."""
    steps = [
        transforms.RandomCrop(asked.size, padding=PADDING),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(dataset.mean, dataset.std),
    ]
    loader = DataLoader(
        ImageFolder(str(root / "train"), transforms.Compose(steps)),
        asked.batch,
        shuffle=True,
        num_workers=asked.workers,
        persistent_workers=asked.workers > 0,
        pin_memory=device.type == "cuda",
    )
    student = network(dataset, device).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in loader:
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    def loading() -> None:
        for _ in batches():
            pass

    def training() -> None:
        seen = 0.0
        for images, labels in batches():
            loss = F.cross_entropy(student(images).logits, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            seen += loss.item() * len(images)

    return {"loading": loading, "training": training}


def kdrun_loops(dataset: Dataset, asked: argparse.Namespace, device: torch.device) -> dict[str, Task]:
    """Return functions for an epoch of loading and one of training in kdrun."""
    assert isinstance(dataset.train, FileSet)
    batches = Batches(
        dataset.train,
        batch_size=asked.batch,
        seed=0,
        augmentation=Pipeline([CropFlip(PADDING, True)]),
        mean=dataset.mean,
        std=dataset.std,
        device=device,
        workers=Workers(asked.workers),
    )
    recipe = asdict(Recipe(epochs=0, lr=LR, momentum=MOMENTUM, nesterov=False, weight_decay=WEIGHT_DECAY))
    learner = Learner(
        "student",
        network(dataset, device),
        losses.build({"ce": {"use": "ce.CE", "weight": 1.0}}),
        recipe,
        steps_per_epoch=len(batches),
        seed=0,
        precision="fp32",
        device=device,
    )
    settings = Settings(Store(Path(os.devnull)), device, StopFlag())
    spec = Spec(data={}, model={}, objective={}, recipe=recipe, seed=0, precision="fp32")
    context = CohortContext(settings, spec, batches)
    number = iter(range(10**6))

    def loading() -> None:
        for _ in batches.epoch(next(number)):
            pass

    def training() -> None:
        recipe["epochs"] += 1
        with Bar("", {learner.name: ""}, epochs=1, images=len(dataset.train)) as bar:
            for event in train([Unit([learner])], context):
                if isinstance(event, BatchTrained):
                    bar.step(event.images)
                elif isinstance(event, LearnerDiverged):
                    raise SystemExit(f"the benchmark's student diverged: {event.reason}")

    return {"loading": loading, "training": training}


def seconds(task: Task, device: torch.device) -> float:
    """Return the seconds of a task, its work on a GPU included."""
    started = time.perf_counter()
    task()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(root: Path, asked: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time every loop once per round, after one round to warm up; return all raw numbers and their medians."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    os.environ["KDRUN_CACHE"] = str(root / "cache")
    fresh = not (root / "cache").exists()
    started = time.perf_counter()
    dataset = streamed(root)
    checked = time.perf_counter() - started
    sides = {
        "plain loop": plain_loops(root, dataset, asked, device),
        "kdrun": kdrun_loops(dataset, asked, device),
    }
    speed: dict[str, dict[str, list[float]]] = {kind: {side: [] for side in sides} for kind in ("loading", "training")}
    for number in range(asked.rounds + 1):
        if sys.stderr.isatty():
            print(f"\rround {number} of {asked.rounds} ", end="", file=sys.stderr, flush=True)
        for kind, sample in speed.items():
            for side, loops in sides.items():
                taken = seconds(loops[kind], device)
                if number:  # the first warms up: it fills the file cache and starts the workers
                    sample[side].append(asked.images / taken)
    if sys.stderr.isatty():
        print("\r" + " " * 20, end="\r", file=sys.stderr)
    sizes = [path.stat().st_size for path in (root / "train").rglob(f"*.{asked.format}")]
    result: dict[str, Any] = {
        "images": asked.images,
        "size": asked.size,
        "format": asked.format,
        "mean_bytes": round(statistics.mean(sizes)),
        "network": NETWORK,
        "batch_size": asked.batch,
        "workers": asked.workers,
        "rounds": asked.rounds,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load_before": load,
        "first_check_seconds": checked if fresh else None,
        "limit": TIMES_THE_PLAIN_LOOP,
    }
    for kind, sample in speed.items():
        ratios = [b / a for a, b in zip(sample["plain loop"], sample["kdrun"], strict=True)]
        result[kind] = {
            "plain_loop": statistics.median(sample["plain loop"]),
            "kdrun": statistics.median(sample["kdrun"]),
            "ratio": statistics.median(ratios),
            "per_round": {"plain_loop": sample["plain loop"], "kdrun": sample["kdrun"], "ratio": ratios},
        }
    return result


def table(result: dict[str, Any]) -> str:
    """Return the result as text, beside the limit."""
    lines = [
        f"{result['images']:,} {result['format']} files of {result['size']}×{result['size']} pixels,"
        f" {result['mean_bytes'] / 1000:.1f} kB each; batch {result['batch_size']}, {result['workers']} workers,"
        f" {result['device']}, {result['cores']} cores, torch {result['torch']}; medians of {result['rounds']} epochs",
        "",
        f"{'images/s':<10}{'plain loop':>11}{'kdrun':>8}{'ratio (over rounds)':>23}{'limit':>7}",
    ]
    for kind in ("loading", "training"):
        row, ratios = result[kind], result[kind]["per_round"]["ratio"]
        ratio = f"{row['ratio']:.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"
        lines.append(f"{kind:<10}{row['plain_loop']:>11,.0f}{row['kdrun']:>8,.0f}{ratio:>23}{result['limit']:>6.1f}×")
    if result["first_check_seconds"]:
        lines.append(f"\nkdrun's check of all files, once for a folder: {result['first_check_seconds']:.1f} s")
    if (result["load_before"] or 0) > 0.3:
        lines.append(f"\nThe machine was busy before (load {result['load_before']:.1f}): measure again in quiet.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder for the pictures, kept; else one that is removed again")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--size", type=int, default=96, help="pixels of a side")
    parser.add_argument("--format", choices=("jpg", "png"), default="jpg")
    parser.add_argument("--rounds", type=int, default=5, help="measured epochs of each loop, after one to warm up")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode, for either side")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", type=Path, help="file for all raw numbers")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    asked = parser.parse_args()
    if min(asked.rounds, asked.batch, asked.size) < 1 or asked.workers < 0 or asked.images < 10 * CLASSES:
        parser.error(f"--rounds, --batch and --size must be at least 1, --images at least {10 * CLASSES}")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no CUDA device; type --device cpu")
    with contextlib.ExitStack() as stack:
        root = asked.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kdrun-stream-")))
        make(root, asked.images, asked.size, asked.format)
        result = measure(root, asked, torch.device(asked.device))
    print(table(result))
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nall numbers: {asked.json}")


if __name__ == "__main__":
    main()
