"""How memory and time of a distillation grow: with images, with students that train together, with classes.

    python benchmarks/scaling.py [--batches N] [--rounds N] [--quick] [--json FILE] [--picture FILE]

A CNN of three stages teaches a narrow one (32×32×3 images, batch 64, fp32, CPU) by CE and KD, in the loop that
`kdrun distill` runs. One thing grows at a time: the training images that are held in memory, the students of one
cohort, the classes. Each point is measured in a process of its own: memory is the peak resident set of that process
minus the resident set after its imports; time is the median over batches, after ten to warm up. Rounds are
interleaved, and every number is the median over rounds. The picture is an SVG or a PNG. Run it on a machine with
nothing else to do.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

SIZES = {
    "images": (1_000, 3_000, 10_000, 30_000, 100_000, 300_000),
    "students": (1, 2, 4, 8, 16),
    "classes": (10, 100, 1_000, 10_000),
}
QUICK = {"images": (1_000, 10_000), "students": (1, 2), "classes": (10, 1_000)}
USUAL = {"images": 10_000, "students": 1, "classes": 100}
BATCH, SIDE = 64, 32
TEACHER = {"use": "cnn.PlainCnn", "widths": [16, 32, 64], "convolutions": 2, "dropout": 0.0}
STUDENT = {"use": "cnn.PlainCnn", "widths": [8, 16, 32], "convolutions": 1, "dropout": 0.0}
T, ALPHA, WARM = 4.0, 0.9, 10
COLOURS = {"measured": "#0072B2", "alone": "#D55E00"}  # Okabe & Ito's, with a marker and a line style each
LABELS = {"images": "training images", "students": "students in one cohort", "classes": "classes"}
MB = 1e6


def one(point: dict[str, int], batches: int) -> dict[str, Any]:
    """Measure one point, in this process."""
    import resource
    from dataclasses import asdict

    import psutil
    import torch

    from kdrun import losses, models
    from kdrun.augment import Pipeline
    from kdrun.augment.crop_flip import CropFlip
    from kdrun.config import Recipe
    from kdrun.data.batches import Batches
    from kdrun.data.sets import ImageSet
    from kdrun.training.cohort import Unit
    from kdrun.training.learner import Learner
    from kdrun.training.networks import on_device

    device = torch.device("cpu")

    def network(node: dict[str, Any], seed: int) -> torch.nn.Module:
        size = (SIDE, SIDE)
        built = models.build(**node, num_classes=point["classes"], in_channels=3, image_size=size, seed=seed)
        return on_device(built, device)

    network(STUDENT, 0)(torch.zeros(2, 3, SIDE, SIDE))  # torch sets up memory at its first use, which does not count
    before = psutil.Process().memory_info().rss
    generator = torch.Generator().manual_seed(0)
    shape = (point["images"], SIDE, SIDE, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    labels = torch.randint(0, point["classes"], (point["images"],), generator=generator)
    images = Batches(
        ImageSet(pixels, labels),
        batch_size=BATCH,
        seed=0,
        augmentation=Pipeline([CropFlip(4, True)]),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        device=device,
    )
    teacher = network(TEACHER, 0).requires_grad_(False).eval()
    terms = {
        "ce": {"use": "ce.CE", "weight": 1 - ALPHA},
        "kd": {"use": "kd.KD", "weight": ALPHA, "T": T},
    }
    recipe = asdict(Recipe(epochs=10**6, lr=0.01))
    units = []
    for seed in range(point["students"]):
        learner = Learner(
            f"student {seed}",
            network(STUDENT, seed),
            losses.build(terms),
            recipe,
            steps_per_epoch=len(images),
            seed=seed,
            precision="fp32",
            device=device,
        )
        units.append(Unit([learner]))
    started = time.perf_counter()
    taken = []
    begin = None
    epoch = 0
    while len(taken) < WARM + batches:
        for batch in islice(images.epoch(epoch), WARM + batches - len(taken)):
            begin = begin or time.perf_counter() - started
            with torch.no_grad():
                outputs = teacher(batch.images)
            for unit in units:
                unit.step(batch, [outputs])
            taken.append(time.perf_counter() - started)
            started = time.perf_counter()
        for unit in units:  # kdrun's loop would end the epoch here, with an evaluation
            unit.learners[0].progress.batch = 0
        epoch += 1
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss counts bytes there, and kilobytes elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    return {
        "peak_mb": (peak - before) / MB,
        "batch_ms": 1000 * statistics.median(taken[WARM:]),
        "first_batch_ms": 1000 * (begin or 0.0),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def measure(batches: int, rounds: int, sizes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Measure every point once per round, each in a process of its own; return raw numbers and their medians."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    points = [(what, size) for what, all_sizes in sizes.items() for size in all_sizes]
    found: dict[tuple[str, int], list[dict[str, Any]]] = {point: [] for point in points}
    for number in range(1, rounds + 1):
        for what, size in points:
            if sys.stderr.isatty():
                print(f"\rround {number} of {rounds}: {size} {what}   ", end="", file=sys.stderr, flush=True)
            asked = json.dumps({**USUAL, what: size})
            command = [sys.executable, __file__, "--one", asked, "--batches", str(batches)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{size} {what}: {done.stderr}")
            found[what, size].append(json.loads(done.stdout))
    if sys.stderr.isatty():
        print("\r" + " " * 50, end="\r", file=sys.stderr)
    numbers = ("peak_mb", "batch_ms", "first_batch_ms")
    first = found[points[0]][0]
    return {
        "batches": batches,
        "rounds": rounds,
        "batch_size": BATCH,
        "side": SIDE,
        "teacher": TEACHER,
        "student": STUDENT,
        "usual": USUAL,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": first["threads"],
        "torch": first["torch"],
        "load_before": load,
        "points": {
            what: [
                {"size": size}
                | {key: statistics.median(row[key] for row in found[what, size]) for key in numbers}
                | {"per_round": [{key: row[key] for key in numbers} for row in found[what, size]]}
                for size in all_sizes
            ]
            for what, all_sizes in sizes.items()
        },
    }


def table(result: dict[str, Any]) -> str:
    """Return all points as text."""
    usual = ", ".join(f"{size:,} {what}" for what, size in result["usual"].items()).replace("1 students", "1 student")
    lines = [
        f"batch {result['batch_size']}, {result['machine']}, {result['threads']} threads, torch {result['torch']};"
        f" medians of {result['rounds']} rounds of {result['batches']} batches; where not said, {usual}",
    ]
    for what, rows in result["points"].items():
        lines += ["", f"{what:>10}{'memory, MB':>13}{'a batch, ms':>14}{'first batch of an epoch, ms':>30}"]
        lines += [
            f"{row['size']:>10,}{row['peak_mb']:>13,.0f}{row['batch_ms']:>14.1f}{row['first_batch_ms']:>30.1f}"
            for row in rows
        ]
    if (result["load_before"] or 0) > 0.3:
        lines.append(f"\nThe machine was busy before (load {result['load_before']:.1f}): measure again in quiet.")
    return "\n".join(lines)


def draw(result: dict[str, Any], file: Path) -> None:
    """Draw memory (above) and time (below) over each size that grows; for a cohort also its students one by one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator

    look: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "kdrun"}
    with plt.rc_context(look):
        figure, grid = plt.subplots(2, 3, figsize=(9.6, 5.6), sharex="col", sharey="row", layout="constrained")
        for column, (what, rows) in enumerate(result["points"].items()):
            sizes = [row["size"] for row in rows]
            for axes, key in zip(grid[:, column], ("peak_mb", "batch_ms"), strict=True):
                values = [row[key] for row in rows]
                axes.plot(sizes, values, color=COLOURS["measured"], marker="o", zorder=3, label="measured")
                if what == "students" and key == "batch_ms":
                    apart = [values[0] * size for size in sizes]
                    label = "one after the other: K times K = 1"
                    axes.plot(sizes, apart, color=COLOURS["alone"], linestyle="--", marker="s", label=label)
                    axes.legend(frameon=False, fontsize=8, loc="upper left")
                axes.set_xscale("log")
                axes.set_yscale("log")
                axes.set_xticks(sizes)
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.minorticks_off()
                axes.xaxis.set_major_formatter(FuncFormatter(_short))
                axes.yaxis.set_major_formatter(FuncFormatter(_short))
                axes.grid(axis="y", color="#dddddd", linewidth=0.7)
            grid[1, column].set_xlabel(LABELS[what])
        grid[0, 0].set_ylabel("memory beyond the imports, MB")
        grid[1, 0].set_ylabel("time of a batch, ms")
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=120)
        plt.close(figure)


def _short(value: float, _place: int) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, default=40, help="measured batches of a point, after ten to warm up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two sizes each: does it run?")
    parser.add_argument("--json", type=Path, help="file for all raw numbers")
    parser.add_argument("--picture", type=Path, help="file for the picture, .svg or .png")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rounds < 1 or asked.batches < 1:
        parser.error("--rounds and --batches must be at least 1")
    if asked.one is not None:
        print(json.dumps(one(json.loads(asked.one), asked.batches)))
        return
    result = measure(asked.batches, asked.rounds, QUICK if asked.quick else SIZES)
    print(table(result))
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nall numbers: {asked.json}")
    if asked.picture is not None:
        draw(result, asked.picture)
        print(f"picture: {asked.picture}")


if __name__ == "__main__":
    main()
