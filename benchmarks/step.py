"""Images per second of kdrun's training loop beside a plain PyTorch loop and the machine's convolution peak.

    python benchmarks/step.py [--rounds N] [--batches N] [--json FILE] [--device cpu|cuda]

resnet32x4 teaches resnet8x4 on synthetic images of CIFAR-100's shape, batch 64, fp32, on both sides with the
same networks and the same optimiser. The plain loop is what published training codes do: a DataLoader with
worker processes, PIL images through torchvision's transforms, contiguous images, the teacher under no_grad,
a loss read back at every step. kdrun's side is the code that `kdrun distill` runs. Neither side evaluates or
writes checkpoints.

Both sides are in this one script, since only loops that take turns in one process can be compared. Rounds are
interleaved, so that a machine that slows down slows both sides; ratios are taken within a round, and every number
printed is the median over rounds. Run it on a machine with nothing else to do.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision.transforms as transforms
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from kdrun import losses, models
from kdrun.augment import Pipeline
from kdrun.augment.crop_flip import CropFlip
from kdrun.config import CONF, Recipe
from kdrun.data.batches import Batches
from kdrun.data.sets import ImageSet
from kdrun.signals import StopFlag
from kdrun.spec import Spec
from kdrun.store import Store
from kdrun.training.cohort import BatchTrained, CohortContext, LearnerDiverged, Unit, train
from kdrun.training.compiled import compile_forward
from kdrun.training.learner import Learner
from kdrun.training.progress import Bar
from kdrun.training.settings import Settings

TEACHER, STUDENT, CLASSES, BATCH = "resnet32x4", "resnet8x4", 100, 64
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
T, ALPHA, LR, MOMENTUM, WEIGHT_DECAY = 4.0, 0.9, 0.01, 0.9, 5e-4
CONVOLUTIONS = ((64, 32), (128, 16), (256, 8))  # channels and image side of the networks' three stages
WORKERS = 2

TIMES_THE_PLAIN_LOOP = 1.2  # the limits, for a CPU
SHARE_OF_THE_PEAK = 0.7

Task = Callable[[], None]


def network(name: str, device: torch.device) -> nn.Module:
    """Return a network with its initial weights, as its YAML describes it."""
    node: Any = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{name}.yaml"))
    size = (32, 32)
    built = models.build(**node, num_classes=CLASSES, in_channels=3, image_size=size, mean=MEAN, std=STD, seed=0)
    return built.to(device)


class Pictures(Dataset[tuple[Tensor, int]]):
    """CIFAR as torchvision serves it: one sample at a time, from uint8 (H, W, 3) through PIL to a tensor."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = pixels.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def plain_loop(pixels: Tensor, labels: Tensor, device: torch.device, distil: bool) -> Task:
    """Return a function that runs one epoch of the plain loop, the next one at each call."""
    student = network(STUDENT, device).train()
    teacher = network(TEACHER, device).eval() if distil else None
    optimizer = torch.optim.SGD(student.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    loader = DataLoader(Pictures(pixels, labels), BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)

    def epoch() -> None:
        seen = 0.0
        for images, targets in loader:
            images, targets = images.to(device), targets.to(device)
            logits = student(images).logits
            loss = F.cross_entropy(logits, targets)
            if teacher is not None:
                with torch.no_grad():
                    teacher_logits = teacher(images).logits
                soft = F.kl_div((logits / T).log_softmax(1), (teacher_logits / T).softmax(1), reduction="batchmean")
                loss = (1 - ALPHA) * loss + ALPHA * T**2 * soft
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            seen += loss.item() * len(images)

    return epoch


def kdrun_loop(
    pixels: Tensor,
    labels: Tensor,
    device: torch.device,
    distil: bool,
    precision: str = "fp32",
    compiled: bool = False,
    students: int = 1,
    pair: tuple[str, str] = (TEACHER, STUDENT),
) -> Task:
    """Return a function that runs one epoch of kdrun's training at each call; several students train as one cohort."""
    terms: dict[str, dict[str, Any]] = {"ce": {"use": "ce.CE", "weight": 1.0}}
    teachers: list[nn.Module] = []
    if distil:
        terms["ce"]["weight"] = 1 - ALPHA
        terms["kd"] = {"use": "kd.KD", "weight": ALPHA, "T": T}
        teacher = network(pair[0], device).to(memory_format=torch.channels_last)
        teachers.append(teacher.requires_grad_(False).eval())
        if compiled:
            compile_forward(teacher)
    batches = Batches(
        ImageSet(pixels, labels),
        batch_size=BATCH,
        seed=0,
        augmentation=Pipeline([CropFlip(4, True)]),
        mean=MEAN,
        std=STD,
        device=device,
    )
    recipe = asdict(Recipe(epochs=0, lr=LR, momentum=MOMENTUM, nesterov=False, weight_decay=WEIGHT_DECAY))
    learners = [
        Learner(
            f"{pair[1]} {i}",
            network(pair[1], device),
            losses.build(terms),
            recipe,
            steps_per_epoch=len(batches),
            seed=0,
            precision=precision,
            compiled=compiled,
            device=device,
        )
        for i in range(students)
    ]
    settings = Settings(Store(Path(os.devnull)), device, StopFlag())
    spec = Spec(data={}, model={}, objective=terms, recipe=recipe, seed=0, precision=precision)
    context = CohortContext(settings, spec, batches, teachers)

    def epoch() -> None:
        recipe["epochs"] += 1
        with Bar("", {learner.name: "" for learner in learners}, epochs=1, images=len(labels)) as bar:
            for event in train([Unit([learner]) for learner in learners], context):
                if isinstance(event, BatchTrained):
                    bar.step(event.images)
                elif isinstance(event, LearnerDiverged):
                    raise SystemExit(f"the benchmark's student diverged: {event.reason}")

    return epoch


def convolutions(device: torch.device) -> dict[str, tuple[float, Task]]:
    """Return 3×3 convolutions in channels_last by name: the GFLOP of one, and a function that computes it 20 times."""
    found: dict[str, tuple[float, Task]] = {}
    for channels, side in CONVOLUTIONS:
        shape = (BATCH, channels, side, side)
        images = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, device=device).contiguous(memory_format=torch.channels_last)
        call = partial(F.conv2d, images, weight, padding=1)
        found[f"{channels}×{side}×{side}"] = (_gflop(call), partial(_repeat, call, 20))
    return found


def _repeat(call: Callable[[], object], times: int) -> None:
    with torch.no_grad():
        for _ in range(times):
            call()


def _gflop(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops()) / 1e9


def arithmetic(pair: tuple[str, str] = (TEACHER, STUDENT)) -> tuple[float, float]:
    """Return the GFLOP per image of the teacher's forward, and of the student's forward and backward."""
    images = torch.randn(2, 3, 32, 32)
    teacher, student = (network(name, torch.device("cpu")) for name in pair)
    teacher.eval()
    with torch.no_grad():
        forward = _gflop(lambda: teacher(images))
    return forward / 2, _gflop(lambda: student(images).logits.sum().backward()) / 2


def seconds(task: Task, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    task()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(rounds: int, batches: int, device: torch.device) -> dict[str, Any]:
    """Time every task once per round, after one round to warm up; return all raw numbers and their medians."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    generator = torch.Generator().manual_seed(0)
    images = batches * BATCH
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (images,), generator=generator)
    peaks = convolutions(device)
    loops = {
        (kind, side): loop(pixels, labels, device, kind == "distillation")
        for kind in ("plain training", "distillation")
        for side, loop in (("plain loop", plain_loop), ("kdrun", kdrun_loop))
    }
    speed: dict[tuple[str, str], list[float]] = {key: [] for key in loops}
    peak: dict[str, list[float]] = {name: [] for name in peaks}
    for number in _rounds(rounds):
        for name, (gflop, task) in peaks.items():
            peak[name].append(20 * gflop / seconds(task, device))
        for key, task in loops.items():
            speed[key].append(images / seconds(task, device))
        if number == 0:
            for values in (*peak.values(), *speed.values()):
                values.clear()
    teacher, student = arithmetic()
    best = max(statistics.median(values) for values in peak.values())
    result: dict[str, Any] = {
        "pair": f"{TEACHER} → {STUDENT}",
        "batch_size": BATCH,
        "rounds": rounds,
        "batches": batches,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load_before": load,
        "gflop_per_image": {"teacher_forward": teacher, "student_forward_backward": student},
        "peak_gflops": {"best": best, "per_round": peak},
        "limits": {"ratio": TIMES_THE_PLAIN_LOOP, "share": SHARE_OF_THE_PEAK},
    }
    for kind, gflop in (("plain training", student), ("distillation", teacher + student)):
        plain, ours = speed[kind, "plain loop"], speed[kind, "kdrun"]
        ratios = [b / a for a, b in zip(plain, ours, strict=True)]
        result[kind] = {
            "plain_loop": statistics.median(plain),
            "kdrun": statistics.median(ours),
            "ratio": statistics.median(ratios),
            "share_of_peak": {
                "plain_loop": statistics.median(plain) * gflop / best,
                "kdrun": statistics.median(ours) * gflop / best,
            },
            "per_round": {"plain_loop": plain, "kdrun": ours, "ratio": ratios},
        }
    return result


def _rounds(rounds: int) -> Iterator[int]:
    """Yield the numbers of the rounds, 0 being the warm-up round, and show the progress on a terminal."""
    for number in range(rounds + 1):
        if sys.stderr.isatty():
            print(f"\rround {number} of {rounds} ", end="", file=sys.stderr, flush=True)
        yield number
    if sys.stderr.isatty():
        print("\r" + " " * 20, end="\r", file=sys.stderr)


def table(result: dict[str, Any]) -> str:
    """Return the result as text, beside the limits."""
    gflop, cpu = result["gflop_per_image"], result["device"].startswith("cpu")
    lines = [
        f"{result['pair']}, batch {result['batch_size']}, fp32, {result['device']},"
        f" {result['threads']} threads, torch {result['torch']};"
        f" medians of {result['rounds']} rounds of {result['batches']} batches",
        f"per image: teacher forward {gflop['teacher_forward']:.3f} GFLOP,"
        f" student forward and backward {gflop['student_forward_backward']:.3f} GFLOP;"
        f" 3×3 convolutions reach {result['peak_gflops']['best']:,.0f} GFLOP/s",
        "",
        f"{'images/s':<16}{'plain loop':>11}{'kdrun':>7}{'ratio (over rounds)':>21}{'limit':>7}"
        f"   | share of peak: {'plain loop':>11}{'kdrun':>7}{'limit':>7}",
    ]
    for kind in ("plain training", "distillation"):
        row, share, ratios = result[kind], result[kind]["share_of_peak"], result[kind]["per_round"]["ratio"]
        ratio = f"{row['ratio']:.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"
        ratio_limit = f"{TIMES_THE_PLAIN_LOOP:.1f}×" if cpu else "–"
        share_limit = f"{SHARE_OF_THE_PEAK:.0%}" if cpu and kind == "distillation" else "–"
        lines.append(
            f"{kind:<16}{row['plain_loop']:>11.0f}{row['kdrun']:>7.0f}{ratio:>21}{ratio_limit:>7}"
            f"   |{share['plain_loop']:>27.0%}{share['kdrun']:>7.0%}{share_limit:>7}"
        )
    if (result["load_before"] or 0) > 0.3:
        lines.append(f"\nThe machine was busy before (load {result['load_before']:.1f}): measure again in quiet.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after one to warm up")
    parser.add_argument("--batches", type=int, default=8, help="batches of 64 images per round and loop")
    parser.add_argument("--json", type=Path, help="file for all raw numbers")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    asked = parser.parse_args()
    if asked.rounds < 1 or asked.batches < 1:
        parser.error("--rounds and --batches must be at least 1")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no CUDA device; type --device cpu")
    result = measure(asked.rounds, asked.batches, torch.device(asked.device))
    print(table(result))
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nall numbers: {asked.json}")


if __name__ == "__main__":
    main()
