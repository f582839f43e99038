"""Images per second of each augmentation beside torchvision's v2 transforms, one sample at a time.

    python benchmarks/augment.py [--rounds N] [--images N] [--json FILE] [--device cpu|cuda]

Both sides make the same output: batches of 64 augmented, normalised float32 images, from the same uint8 images in
memory. torchvision's side is what its users write: a Dataset whose __getitem__ calls a Compose, behind a DataLoader
with two persistent workers, and mixup and CutMix in its collate function. kdrun's side is an epoch of `Batches`, random
draws included, in this process with torch's own threads. So on a machine with two cores each side can use both.

Rounds are interleaved, ratios are taken within a round, and every number printed is the median over rounds. Run it on a
machine with nothing else to do.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from kdrun import augment
from kdrun.config import CONF
from kdrun.data.batches import Batches
from kdrun.data.sets import ImageSet

SHAPES = ((3, 32, 32), (1, 28, 28))
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
BATCH, CLASSES, WORKERS = 64, 10, 2
LIMITS = {"crop_flip": 2.5}  # times torchvision's images/s, on a CPU; 1 for the others

Task = Callable[[], None]


def of_torchvision(name: str, side: int) -> tuple[list[v2.Transform], v2.Transform | None]:
    """Return torchvision's transforms of a sample, and the one of a batch if any, with kdrun's default settings."""
    samples: dict[str, list[v2.Transform]] = {
        "crop_flip": [v2.RandomCrop(side, padding=4), v2.RandomHorizontalFlip()],
        "resized_crop": [v2.RandomResizedCrop(side)],
        "randaugment": [v2.RandAugment()],
        "trivial": [v2.TrivialAugmentWide()],
        "erasing": [v2.RandomErasing()],
    }
    batches = {"mixup": v2.MixUp(num_classes=CLASSES), "cutmix": v2.CutMix(num_classes=CLASSES)}
    return samples.get(name, []), batches.get(name)


NAMES = ("crop_flip", "resized_crop", "randaugment", "trivial", "erasing", "mixup", "cutmix")


class Samples(Dataset[tuple[Tensor, int]]):
    """Images in memory, each transformed when it is asked for."""

    def __init__(self, pixels: Tensor, labels: Tensor, transforms: list[v2.Transform]) -> None:
        channels = pixels.shape[1]
        normalised = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN[:channels], STD[:channels])]
        self.pixels, self.labels = pixels, labels.tolist()
        self.transform = v2.Compose([*transforms, *normalised])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels[index]), self.labels[index]


class Collate:
    """Collate a batch, and mix it."""

    def __init__(self, mixing: v2.Transform) -> None:
        self.mixing = mixing

    def __call__(self, samples: list[Any]) -> Any:
        return self.mixing(*default_collate(samples))


def torchvision_epoch(name: str, pixels: Tensor, labels: Tensor, device: torch.device) -> Task:
    """Return a function that runs one epoch of torchvision's batches, the next one at each call."""
    transforms, mixing = of_torchvision(name, pixels.shape[2])
    loader = DataLoader(
        Samples(pixels, labels, transforms),
        BATCH,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        collate_fn=None if mixing is None else Collate(mixing),
    )

    def epoch() -> None:
        for images, _ in loader:
            images.to(device)

    return epoch


def kdrun_epoch(name: str, pixels: Tensor, labels: Tensor, device: torch.device) -> Task:
    """Return a function that runs one epoch of kdrun's batches, the next one at each call."""
    loaded = OmegaConf.load(CONF / "augment" / f"{name}.yaml")
    if name == "crop_flip":  # its settings come from the data set
        loaded = OmegaConf.create({name: {"use": "crop_flip.CropFlip", "padding": 4, "flip": True}})
    node: Any = OmegaConf.to_container(loaded)
    channels, *size = pixels.shape[1:]
    batches = Batches(
        ImageSet(pixels, labels),
        batch_size=BATCH,
        seed=0,
        augmentation=augment.build(node, mean=MEAN[:channels], size=(size[0], size[1])),
        mean=MEAN[:channels],
        std=STD[:channels],
        device=device,
    )
    number = iter(range(10**9))

    def epoch() -> None:
        for _ in batches.epoch(next(number)):
            pass

    return epoch


def seconds(task: Task, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    task()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(rounds: int, images: int, device: torch.device) -> dict[str, Any]:
    """Time every augmentation on both sides once per round, after a warm-up round; return raw numbers and medians."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    generator = torch.Generator().manual_seed(0)
    result: dict[str, Any] = {
        "batch_size": BATCH,
        "rounds": rounds,
        "images": images,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "workers": WORKERS,
        "torch": torch.__version__,
        "load_before": load,
        "shapes": {},
    }
    for shape in SHAPES:
        pixels = torch.randint(0, 256, (images, *shape), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, CLASSES, (images,), generator=generator)
        rows = {}
        for name in NAMES:
            theirs, ours = (make(name, pixels, labels, device) for make in (torchvision_epoch, kdrun_epoch))
            speed: dict[str, list[float]] = {"torchvision": [], "kdrun": []}
            for number in range(rounds + 1):
                for side, task in (("torchvision", theirs), ("kdrun", ours)):
                    taken = images / seconds(task, device)
                    speed[side] += [taken] if number else []
            ratios = [b / a for a, b in zip(speed["torchvision"], speed["kdrun"], strict=True)]
            medians = {side: statistics.median(values) for side, values in speed.items()}
            rows[name] = {
                **medians,
                "ratio": statistics.median(ratios),
                "limit": LIMITS.get(name, 1.0),
                "per_round": {**speed, "ratio": ratios},
            }
        result["shapes"]["×".join(map(str, (*shape[1:], shape[0])))] = rows
    return result


def table(result: dict[str, Any]) -> str:
    """Return the result as text, beside the limits."""
    cpu = result["device"].startswith("cpu")
    lines = [
        f"batches of {result['batch_size']}, {result['device']}, {result['threads']} threads here,"
        f" {result['workers']} worker processes there, torch {result['torch']};"
        f" medians of {result['rounds']} rounds of {result['images']} images"
    ]
    for shape, rows in result["shapes"].items():
        title = f"images/s, {shape}"
        lines += ["", f"{title:<24}{'torchvision':>12}{'kdrun':>10}{'ratio (over rounds)':>24}{'limit':>7}"]
        for name, row in rows.items():
            ratios = row["per_round"]["ratio"]
            ratio = f"{row['ratio']:.1f}× ({min(ratios):.1f}–{max(ratios):.1f})"
            limit = f"{row['limit']:.1f}×" if cpu else "–"
            lines.append(f"{name:<24}{row['torchvision']:>12,.0f}{row['kdrun']:>10,.0f}{ratio:>24}{limit:>7}")
    if (result["load_before"] or 0) > 0.3:
        lines.append(f"\nThe machine was busy before (load {result['load_before']:.1f}): measure again in quiet.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after one to warm up")
    parser.add_argument("--images", type=int, default=4096, help="images of each shape")
    parser.add_argument("--json", type=Path, help="file for all raw numbers")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    asked = parser.parse_args()
    if asked.rounds < 1 or asked.images < BATCH:
        parser.error(f"--rounds must be at least 1, --images at least {BATCH}")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no CUDA device; type --device cpu")
    result = measure(asked.rounds, asked.images, torch.device(asked.device))
    print(table(result))
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nall numbers: {asked.json}")


if __name__ == "__main__":
    main()
