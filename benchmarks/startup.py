"""Seconds from a command to its answer, and to the first step of a training, beside `import torch` alone.

    python benchmarks/startup.py [--runs N] [--device cpu|cuda] [--json FILE]

Each command runs in a process of its own, in an empty folder. The first training step is that of `kdrun distill`
with its default settings, which trains a teacher on scikit-learn's digits: the process is killed as soon as the
step is done, and its whole lifetime is printed. Every round runs each command once, after one round to warm up
the system's file cache; medians over rounds are printed. Run it on a machine with nothing else to do.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

FIRST_STEP = {"KDRUN_FAULT": "after_batch:1:kill"}


class Command(NamedTuple):
    """A command, its time limit, its environment and its expected exit code."""

    words: tuple[str, ...]
    limit: float | str | None = None
    """Seconds, the name of another row whose time is the limit, or None."""
    environment: dict[str, str] = {}  # noqa: RUF012
    code: int = 0


def commands(device: str) -> dict[str, Command]:
    """Return all rows of the table by name."""
    kdrun = ("-m", "kdrun")
    return {
        "python": Command(("-c", "pass")),
        "import torch": Command(("-c", "import torch")),
        "kdrun --help": Command((*kdrun, "--help"), "import torch"),
        "kdrun losses": Command((*kdrun, "losses"), "import torch"),
        "kdrun models": Command((*kdrun, "models"), 3.0),
        "kdrun distill plan=true": Command((*kdrun, "distill", "plan=true", f"device={device}")),
        "kdrun distill, to its first step": Command(
            (*kdrun, "distill", f"device={device}"), 5.0, FIRST_STEP, -signal.SIGKILL
        ),
    }


def seconds(command: Command) -> float:
    """Return the seconds of a command in an empty folder; its output is shown only if it fails."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("KDRUN_")}
    with tempfile.TemporaryDirectory(prefix="kdrun-startup-") as folder:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *command.words],
            cwd=folder,
            env=plain | command.environment,
            capture_output=True,
            text=True,
        )
        taken = time.perf_counter() - started
    if done.returncode != command.code:
        raise SystemExit(f"{' '.join(command.words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return taken


def measure(runs: int, device: str) -> dict[str, Any]:
    """Time every command once per round; return all raw numbers and their medians."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    rows = commands(device)
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(runs + 1):
        if sys.stderr.isatty():
            print(f"\rround {number} of {runs} ", end="", file=sys.stderr, flush=True)
        for name, command in rows.items():
            found = seconds(command)
            if number:
                taken[name].append(found)
    if sys.stderr.isatty():
        print("\r" + " " * 20, end="\r", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    limits = {n: medians[c.limit] if isinstance(c.limit, str) else c.limit for n, c in rows.items()}
    return {
        "runs": runs,
        "device": device,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": load,
        "commands": {
            name: {"seconds": medians[name], "limit": limits[name], "per_round": taken[name]} for name in rows
        },
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as text, beside the limits."""
    lines = [
        f"{result['machine']}, {result['cores']} cores, Python {result['python']}, device={result['device']};"
        f" medians of {result['runs']} runs",
        "",
        f"{'seconds':<34}{'median':>8}{'(over runs)':>15}{'limit':>7}",
    ]
    for name, row in result["commands"].items():
        values = row["per_round"]
        limit = "–" if row["limit"] is None else f"{row['limit']:.2f}"
        spread = f"({min(values):.2f}–{max(values):.2f})"
        lines.append(f"{name:<34}{row['seconds']:>8.2f}{spread:>15}{limit:>7}")
    if (result["load_before"] or 0) > 0.3:
        lines.append(f"\nThe machine was busy before (load {result['load_before']:.1f}): measure again in quiet.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="measured runs of each command, after one to warm up")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the training")
    parser.add_argument("--json", type=Path, help="file for all raw numbers")
    asked = parser.parse_args()
    if asked.runs < 1:
        parser.error("--runs must be at least 1")
    result = measure(asked.runs, asked.device)
    print(table(result))
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nall numbers: {asked.json}")


if __name__ == "__main__":
    main()
