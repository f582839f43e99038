"""Seconds that a command takes besides training, beside `import torch` alone: everything it asks for is found.

    python benchmarks/overhead.py [--runs N] [--cells N] [--json FILE]

Each command trains once, in a temporary folder; then it is run again, each time in a process of its own: `kdrun
distill` with its default settings, a sweep of 3 cells, and a sweep of more. Every round runs each command once, and
`import torch` before each; ratios are taken within a round, and medians over rounds are printed. The cost of a further
cell is the difference between the two sweeps, divided by that of their numbers of cells. CPU seconds (user + system)
are beside those of the clock: on a machine that does other work, only the ratios of CPU seconds can be trusted.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

FEW = 3  # cells of the smaller sweep
SWEPT = ("seeds=1", "recipe.epochs=1", "teacher.recipe.epochs=2")
LIMITS = {"the main job": 4.0, f"a sweep of {FEW} cells": 3.5, "each further cell": 0.05}  # × import torch


class Taken(NamedTuple):
    """Seconds of a command: wall-clock time and CPU time."""

    wall: float
    cpu: float


def run(words: list[str], folder: str) -> Taken:
    """Run Python with these words in a folder, and return its times; its output is shown only if it fails."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("KDRUN_") or k == "KDRUN_DATA"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=folder, env=plain, capture_output=True, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return Taken(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def commands(cells: int) -> dict[str, list[str]]:
    """Return the commands by name."""
    distill = ["-m", "kdrun", "distill", "device=cpu"]
    return {
        "the main job": distill,
        **{
            f"a sweep of {n} cells": [*distill, "-m", *SWEPT, f"T={','.join(map(str, range(1, n + 1)))}"]
            for n in (FEW, cells)
        },
    }


def measure(runs: int, cells: int) -> dict[str, Any]:
    """Time every command once per round; return all raw numbers and ratios to `import torch`."""
    rows, torch = commands(cells), ["-c", "import torch"]
    taken: dict[str, list[Taken]] = {name: [] for name in ("import torch", *rows)}
    ratios: dict[str, list[Taken]] = {name: [] for name in (*rows, "each further cell")}
    with tempfile.TemporaryDirectory(prefix="kdrun-overhead-") as folder:
        for words in (torch, *rows.values()):
            run(words, folder)  # trains, writes and draws everything, which later runs find
        for number in range(runs):
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {runs} ", end="", file=sys.stderr, flush=True)
            now = {}
            for name, words in rows.items():
                alone, now[name] = run(torch, folder), run(words, folder)
                taken["import torch"].append(alone)
                taken[name].append(now[name])
                ratios[name].append(Taken(*(a / b for a, b in zip(now[name], alone, strict=True))))
            few, many = (now[name] for name in list(rows)[1:])
            alone = Taken(*(statistics.mean(v) for v in zip(*taken["import torch"][-len(rows) :], strict=True)))
            further = ((m - f) / (cells - FEW) / t for f, m, t in zip(few, many, alone, strict=True))
            ratios["each further cell"].append(Taken(*further))
    if sys.stderr.isatty():
        print("\r" + " " * 20, end="\r", file=sys.stderr)
    return {
        "runs": runs,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_after": os.getloadavg()[0],
        "seconds": {name: [one._asdict() for one in values] for name, values in taken.items()},
        "ratios": {name: [one._asdict() for one in values] for name, values in ratios.items()},
        "limits": LIMITS,
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as text, beside the limits."""
    lines = [
        f"{result['machine']}, {result['cores']} cores, Python {result['python']}; medians of {result['runs']} rounds",
        "",
        f"{'everything found':<22}{'seconds':>9}{'of CPU':>9}{'× import torch':>16}{'of CPU':>9}{'limit':>8}",
    ]

    def median(rows: list[dict[str, float]], key: str) -> float:
        return statistics.median(row[key] for row in rows)

    for name in dict.fromkeys([*result["seconds"], *result["ratios"]]):
        seconds, ratios = result["seconds"].get(name), result["ratios"].get(name)
        line = f"{name:<22}"
        line += "".join(
            f"{'–' if rows is None else f'{median(rows, key):.{digits}f}':>{width}}"
            for rows, digits, widths in ((seconds, 2, (9, 9)), (ratios, 3 if "further" in name else 2, (16, 9)))
            for key, width in zip(("wall", "cpu"), widths, strict=True)
        )
        limit = result["limits"].get(name)
        lines.append(f"{line}{'–' if limit is None else f'{limit:g}':>8}")
    if result["load_after"] > 2.0:
        lines.append(f"\nOther work ran too (load {result['load_after']:.1f}): trust the processors' ratios.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="measured rounds")
    parser.add_argument("--cells", type=int, default=23, help=f"of the larger sweep, more than {FEW}")
    parser.add_argument("--json", type=Path, help="file for all raw numbers")
    asked = parser.parse_args()
    if asked.runs < 1 or asked.cells <= FEW:
        parser.error(f"--runs must be at least 1, and --cells more than {FEW}")
    result = measure(asked.runs, asked.cells)
    print(table(result))
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nall numbers: {asked.json}")


if __name__ == "__main__":
    main()
