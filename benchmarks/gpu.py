"""Everything about one GPU that kdrun's decisions hang on, in one run of under ten minutes.

    python benchmarks/gpu.py --json FILE [--minutes 9]        on a CPU: --smoke, to see that it works

resnet32x4 teaches resnet8x4 at batch 64 on images of CIFAR-100's shape that are in GPU memory, by the code that
`kdrun distill` runs. The parts are, in this order: the peak of matrix products and convolutions; a step, plain and
distilled, in every precision; the share of a step in which the GPU runs kernels (below 0.7 it waits for the CPU to
launch them, and CUDA graphs would pay); epochs of 50,000 images and an evaluation of 10,000, projected to 240 epochs;
sweeps of 1 to 8 students in one cohort against the law K(T + S)/(T + KS), with their memory; then, if there is time, a
step under compile=true, and 240 epochs themselves.

It is all one script, since a machine with a GPU is often available for some minutes and one command only. FILE is
rewritten after every part, so that nothing is lost if the time runs out.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from step import BATCH, CLASSES, CONVOLUTIONS, MEAN, STD, STUDENT, TEACHER, arithmetic, kdrun_loop, network
from torch.profiler import ProfilerActivity, profile

from kdrun.data.batches import in_order
from kdrun.data.sets import ImageSet
from kdrun.training import compiled, devices
from kdrun.training.measure import measure

LAUNCH_BOUND = 0.7  # share of a step's time in kernels, below which the GPU waits for launches
EPOCHS = 240


@dataclass(frozen=True)
class Size:
    """The sizes of all measurements."""

    pair: tuple[str, str] = (TEACHER, STUDENT)
    images: int = 50_000
    held: int = 10_000
    steps: int = 100
    profiled: int = 20
    rounds: int = 3
    epochs: int = 1
    matrix: int = 8192
    repeats: int = 20
    wide: int = 1024  # a batch that fills the GPU
    cohorts: tuple[int, ...] = (1, 2, 4, 8)


SMOKE = Size(("resnet8", "resnet8"), 100, 20, 1, 1, 1, 1, 64, 2, 2, (1, 2))


class Bench:
    """One device, the images on it, and the time that is left."""

    def __init__(self, size: Size, device: torch.device, minutes: float) -> None:
        self.size, self.device = size, device
        self.precisions = ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16")
        self.end = time.monotonic() + 60 * minutes
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randint(0, 256, (size.images, 3, 32, 32), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(0, CLASSES, (size.images,), generator=generator)
        self.pixels, self.labels = self.pixels.to(device), self.labels.to(device)

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def seconds(self, task: Callable[[], object], times: int = 1) -> float:
        """Return the seconds of a call, its work on the GPU included: the mean of several calls."""
        self.wait()
        started = time.perf_counter()
        for _ in range(times):
            task()
        self.wait()
        return (time.perf_counter() - started) / times

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def loop(self, distil: bool, precision: str = "bf16", *, images: int = 0, **settings: Any) -> Callable[[], None]:
        """Return a function that runs one epoch over the first `images`, by default as many as the timed steps need."""
        n = images or self.size.steps * BATCH
        given = (self.pixels[:n], self.labels[:n], self.device, distil, precision)
        return kdrun_loop(*given, pair=self.size.pair, **settings)

    def step_seconds(self, task: Callable[[], None]) -> float:
        """Return the seconds of a step: the median over rounds of one epoch, after one to warm up."""
        task()
        return statistics.median(self.seconds(task) for _ in range(self.size.rounds)) / self.size.steps


def peaks(bench: Bench) -> dict[str, dict[str, float]]:
    """Return the TFLOP/s of one large matrix product, and of the networks' convolutions at batch 64 and a large one."""
    found: dict[str, dict[str, float]] = {}
    for precision in bench.precisions:
        devices.set_float32(precision)
        kind: dict[str, Any] = {
            "dtype": torch.bfloat16 if precision == "bf16" else torch.float32,
            "device": bench.device,
        }
        n = bench.size.matrix
        a, b = torch.randn(n, n, **kind), torch.randn(n, n, **kind)
        calls: dict[str, tuple[float, Callable[[], object]]] = {"matrix": (2 * n**3, lambda a=a, b=b: a @ b)}
        for channels, side in CONVOLUTIONS:
            for batch in (BATCH, bench.size.wide):
                x = torch.randn(batch, channels, side, side, **kind).contiguous(memory_format=torch.channels_last)
                w = torch.randn(channels, channels, 3, 3, **kind).contiguous(memory_format=torch.channels_last)
                flop = 2 * 9 * channels**2 * side**2 * batch
                calls[f"{batch}×{channels}×{side}×{side}"] = (flop, lambda x=x, w=w: F.conv2d(x, w, padding=1))
        with torch.no_grad():
            for _, call in calls.values():
                bench.seconds(call, 3)
            found[precision] = {
                name: flop / bench.seconds(call, bench.size.repeats) / 1e12 for name, (flop, call) in calls.items()
            }
    return found


def steps(bench: Bench, peak: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return a step's milliseconds, images per second and share of the peak, plain and distilled, in each precision."""
    teacher, student = arithmetic(bench.size.pair)
    found: dict[str, Any] = {"gflop_per_image": {"teacher_forward": teacher, "student_forward_backward": student}}
    for kind, distil, gflop in (("plain", False, student), ("distilled", True, teacher + student)):
        for precision in bench.precisions:
            took = bench.step_seconds(bench.loop(distil, precision))
            found[f"{kind} {precision}"] = _step(took, gflop, peak[precision])
    if bench.device.type == "cuda":  # what do deterministic algorithms cost, which kdrun always uses?
        torch.use_deterministic_algorithms(False)
        for precision in bench.precisions:
            took = bench.step_seconds(bench.loop(True, precision))
            found[f"distilled {precision}, any algorithm"] = _step(took, teacher + student, peak[precision])
        devices.deterministic()
    return found


def _step(took: float, gflop: float, peak: dict[str, float]) -> dict[str, float]:
    reached = gflop * BATCH / took / 1e3
    convolution = max(value for name, value in peak.items() if name != "matrix")
    return {
        "milliseconds": 1e3 * took,
        "images_per_second": BATCH / took,
        "tflops": reached,
        "share_of_matrix_peak": reached / peak["matrix"],
        "share_of_convolution_peak": reached / convolution,
    }


def at_work(bench: Bench, step: dict[str, Any]) -> dict[str, Any]:
    """Return the share of a step's time in which kernels run: their time under the profiler, the step's without it."""
    found: dict[str, Any] = {}
    gpu = bench.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    for kind, distil in (("plain", False), ("distilled", True)):
        task = bench.loop(distil, images=bench.size.profiled * BATCH)
        task()
        bench.wait()
        with profile(activities=activities) as run:
            task()
            bench.wait()
        own = "self_device_time_total" if gpu else "self_cpu_time_total"
        events = [e for e in run.key_averages() if not gpu or e.device_type == torch.autograd.DeviceType.CUDA]
        events = [e for e in events if not e.is_user_annotation]  # their time is that of the kernels inside them
        busy = sum(getattr(event, own) for event in events) / 1e3 / bench.size.profiled
        share = busy / step[f"{kind} bf16"]["milliseconds"]
        longest = sorted(events, key=lambda event: -getattr(event, own))[:8]
        found[kind] = {
            "kernel_milliseconds": busy,
            "kernels": sum(event.count for event in events) / bench.size.profiled,
            "share": share,
            "launch_bound": share < LAUNCH_BOUND,
            "longest": {event.key[:80]: getattr(event, own) / 1e3 / bench.size.profiled for event in longest},
        }
    return found


def epochs(bench: Bench) -> dict[str, float]:
    """Return the seconds of an epoch and of an evaluation, and those of 240 epochs projected from them."""
    size = bench.size
    found: dict[str, float] = {}
    for kind, distil in (("plain", False), ("distilled", True)):
        task = bench.loop(distil, images=size.images)  # the steps measured before have warmed everything up
        found[f"{kind}_epoch"] = statistics.median(bench.seconds(task) for _ in range(size.epochs))
    student = network(size.pair[1], bench.device).to(memory_format=torch.channels_last)
    held = ImageSet(bench.pixels[: size.held], bench.labels[: size.held])

    def evaluate() -> None:
        given = in_order(held, batch_size=512, mean=MEAN, std=STD, device=bench.device)
        measure(student, given, "bf16", bench.device)

    evaluate()
    found["evaluation"] = statistics.median(bench.seconds(evaluate) for _ in range(size.rounds))
    for kind in ("plain", "distilled"):
        found[f"{kind}_{EPOCHS}_epochs_projected"] = EPOCHS * (found[f"{kind}_epoch"] + found["evaluation"])
    return found


@torch.no_grad()
def teacher_seconds(bench: Bench) -> float:
    """Time the teacher's forward pass over one batch."""
    teacher = network(bench.size.pair[0], bench.device).to(memory_format=torch.channels_last).eval()
    images = torch.randn(BATCH, 3, 32, 32, device=bench.device).contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        with devices.autocast("bf16", bench.device):
            teacher(images)

    bench.seconds(forward, 3)
    return bench.seconds(forward, bench.size.steps)


def cohorts(bench: Bench) -> dict[str, Any]:
    """Return the gain of K students in one cohort over one at a time, beside the law, and the cohort's memory."""
    forward = teacher_seconds(bench)
    alone, found = 0.0, {}
    for count in bench.size.cohorts:
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(bench.device)
        took = bench.step_seconds(bench.loop(True, students=count))
        alone = alone or took
        own = max(alone - forward, 0.0)
        found[str(count)] = {
            "milliseconds": 1e3 * took,
            "gain": count * alone / took,
            "law": count * (forward + own) / (forward + count * own),
            "gigabytes": torch.cuda.max_memory_allocated(bench.device) / 1e9 if bench.device.type == "cuda" else None,
        }
    return {"teacher_milliseconds": 1e3 * forward, "students": found}


def under_the_compiler(bench: Bench, step: dict[str, Any]) -> dict[str, Any]:
    """Return the time of a step under compile=true, and of compiling, without that for a smaller last batch."""
    try:
        compiled.check(bench.device)
    except ValueError as error:
        return {"not_measured": str(error)}
    task = bench.loop(True, compiled=True)
    first = bench.seconds(task)
    took = bench.step_seconds(task)
    gain = step["distilled bf16"]["milliseconds"] / (1e3 * took)
    return {"milliseconds": 1e3 * took, "gain": gain, "compile_seconds": first - took * bench.size.steps}


def run(bench: Bench, smoke: bool, kept: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run all parts, one after the other; `kept` is called after each with the results so far."""
    result: dict[str, Any] = {"machine": machine(bench.device), "pair": " → ".join(bench.size.pair)}

    def part(name: str, made: Callable[[], Any]) -> None:
        started = time.monotonic()
        try:
            result[name] = made()
        except Exception as error:  # the other parts are still worth having
            result[name] = {"failed": f"{type(error).__name__}: {error}"}
        result.setdefault("seconds", {})[name] = round(time.monotonic() - started, 1)
        kept(result)

    part("peak_tflops", lambda: peaks(bench))
    part("step", lambda: steps(bench, result["peak_tflops"]))
    part("at_work", lambda: at_work(bench, result["step"]))
    part("epoch_seconds", lambda: epochs(bench))
    part("cohort", lambda: cohorts(bench))
    if not smoke and bench.left > 150:
        part("compiled", lambda: under_the_compiler(bench, result["step"]))
    projected = result["epoch_seconds"].get(f"distilled_{EPOCHS}_epochs_projected", float("inf"))
    if not smoke and projected < bench.left - 15:
        part(f"distilled_{EPOCHS}_epochs_measured", lambda: whole(bench))
    return result


def whole(bench: Bench) -> float:
    """Train 240 epochs, without the evaluations, and time them."""
    task = bench.loop(True, images=bench.size.images)
    return bench.seconds(task, EPOCHS)


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the device that is measured."""
    found: dict[str, Any] = {"device": devices.describe(device), "torch": torch.__version__}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "memory_gb": properties.total_memory / 1e9,
            "capability": list(torch.cuda.get_device_capability(device)),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def told(result: dict[str, Any]) -> Iterator[str]:
    """Yield the result line by line, as far as there is one."""
    yield f"{result['pair']}, batch {BATCH}, {result['machine']['device']}, torch {result['machine']['torch']}"
    for name, value in result.items():
        if isinstance(value, dict) and ("failed" in value or "not_measured" in value):
            yield f"{name}: {value.get('failed') or value['not_measured']}"
    for precision, peak in _good(result, "peak_tflops").items():
        yield f"peak {precision}: " + ", ".join(f"{name} {value:.3g}" for name, value in peak.items()) + " TFLOP/s"
    for name, row in _good(result, "step").items():
        if "milliseconds" in row:
            yield (
                f"step {name}: {row['milliseconds']:.2f} ms, {row['images_per_second']:,.0f} images/s, "
                f"{row['share_of_matrix_peak']:.1%} of the matrix peak, "
                f"{row['share_of_convolution_peak']:.1%} of the convolutions'"
            )
    for name, row in _good(result, "at_work").items():
        bound = "launch-bound: CUDA graphs would pay" if row["launch_bound"] else "not launch-bound"
        yield (
            f"{name}: {row['kernels']:.0f} kernels run {row['kernel_milliseconds']:.2f} ms of a step, "
            f"{row['share']:.0%} of its time: {bound}"
        )
    for name, value in _good(result, "epoch_seconds").items():
        yield f"{name.replace('_', ' ')}: {value:.2f} s"
    for count, row in _good(result, "cohort").get("students", {}).items():
        memory = f", {row['gigabytes']:.2f} GB" if row["gigabytes"] is not None else ""
        yield f"{count} students: {row['milliseconds']:.2f} ms, {row['gain']:.2f}× (law {row['law']:.2f}×){memory}"
    if row := _good(result, "compiled"):
        yield (
            f"compile=true: {row['milliseconds']:.2f} ms a step ({row['gain']:.2f}×), "
            f"{row['compile_seconds']:.0f} s to compile"
        )
    if isinstance(took := result.get(f"distilled_{EPOCHS}_epochs_measured"), float):
        yield f"{EPOCHS} epochs, measured, without evaluations: {took * EPOCHS:.0f} s"
    yield f"seconds spent: {result['seconds']}"


def _good(result: dict[str, Any], name: str) -> dict[str, Any]:
    found = result.get(name, {})
    return found if isinstance(found, dict) and not {"failed", "not_measured"} & found.keys() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for all numbers, written after every part")
    parser.add_argument("--minutes", type=float, default=9.0, help="what does not fit into them is left out")
    parser.add_argument("--smoke", action="store_true", help="tiny, on any device: whether it works")
    asked = parser.parse_args()
    if not asked.smoke and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device; --smoke runs a tiny version on its CPU")
    device = devices.resolve_device("auto")

    def keep(result: dict[str, Any]) -> None:
        if asked.json is not None:
            asked.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    result = run(Bench(SMOKE if asked.smoke else Size(), device, asked.minutes), asked.smoke, keep)
    print("\n".join(told(result)))


if __name__ == "__main__":
    main()
