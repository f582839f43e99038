"""What K views of each image cost in accuracy, and what they save in time: augment.views=K beside fresh views.

    python benchmarks/views.py [SETTING=VALUE …] [--views K …] [--epochs N] [--seeds N] [--outputs DIR] [--json FILE]
                               [--write FILE]

Settings are those of `kdrun distill`; the defaults below suit a CPU: a small student learns from 3% of Fashion-MNIST,
every image mixed with another, and the teacher has seen all images. All rows have equal epochs and seeds. "Filling" is
the first command with K views, which runs the teacher as often as it must; "filled" is the same command at another
temperature, which finds all of the teacher's logits on disk. Fresh views run the teacher at every step in both. Seconds
are those of the students' training alone. Accuracy is that of the first command. Trainings that `--outputs` has already
are not repeated, and their times are those of the command that did them: to time banks, begin with an empty folder. Run
it on a machine with nothing else to do. `--write FILE` puts the table between the two marks in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import kdrun
from kdrun import banks, console, sealed
from kdrun.records import ResultJson
from kdrun.results.tables import Table

DEFAULTS = [
    "dataset=fashion_mnist",
    "dataset.val_fraction=0.02",
    "transfer.fraction=0.03",
    "augment=[crop_flip,mixup]",
    "recipe.batch_size=64",
    "student.widths=[8,16,32]",
    "teacher.recipe.epochs=3",
    "teacher.table_gb=8",
    "report=false",
    "tracker=none",
    "quiet=true",
]
VIEWS = [1, 4, 16, 64]
FRESH = 0  # stands for views that are never repeated
T, OTHER_T = 4, 2
MARKS = ("<!-- figures: views -->", "<!-- end of the figures -->")


def trained(settings: list[str], store: Path) -> tuple[list[float], list[float]]:
    """Distil, and return each student's accuracy on the test images and its seconds of training."""
    points = kdrun.distill(*settings).points()
    students = points.query("role == 'student' and at == 'selected' and split == 'test' and measure == 'accuracy'")
    folders = [next(store.glob(f"*-{fingerprint}")) for fingerprint in students.fingerprint]
    return list(students.value), [sealed.read(folder / "result.json", ResultJson)["seconds"] for folder in folders]


def measured(views: int, settings: list[str], store: Path) -> dict[str, Any]:
    """Train students with K views twice, at two temperatures; the newest bank of so many views is theirs."""
    chosen = [f"augment.views={views}"] if views != FRESH else []
    test, filling = trained([*settings, *chosen, f"T={T}"], store)
    files = [path for path in store.glob("teacher-*/banks/*.safetensors") if _views(path) == views]
    size = max(files, key=lambda path: path.stat().st_mtime).stat().st_size if files else 0
    _, filled = trained([*settings, *chosen, f"T={OTHER_T}"], store)
    return {"views": views, "test": test, "filling": filling, "filled": filled, "bytes": size}


def _views(path: Path) -> int | None:
    content = banks.peek(path)
    return None if content is None else content["views"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", nargs="*", help="settings of kdrun distill")
    parser.add_argument("--views", nargs="+", type=int, default=VIEWS)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    settings = [*DEFAULTS, f"recipe.epochs={args.epochs}", f"seeds={args.seeds}", *args.settings]
    settings.append(f"outputs={args.outputs}")
    rows = []
    for views in [*args.views, FRESH]:
        rows.append(measured(views, settings, args.outputs / "store"))
        print(rows[-1], file=sys.stderr)
    report(rows, args)


def report(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Print the table, and write it where asked."""
    fresh = statistics.mean(rows[-1]["filling"])
    cells = []
    for row in rows:
        spread = f" ± {100 * statistics.stdev(row['test']):.2f}" if len(row["test"]) > 1 else ""
        seconds = [statistics.mean(row[key]) for key in ("filling", "filled")]
        cells.append(
            [
                "fresh" if row["views"] == FRESH else str(row["views"]),
                f"{100 * statistics.mean(row['test']):.2f}{spread}",
                *(f"{value:.1f} s ({value / fresh:.2f})" for value in seconds),
                console.size(row["bytes"]) if row["bytes"] else "–",
            ]
        )
    notes = [
        f"{args.epochs} epochs, {args.seeds} seed{'s'[: args.seeds != 1]}; seconds per student, and their share of "
        "those with fresh views; the bank after the first command",
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{datetime.now(UTC):%Y-%m-%d}; made by: python benchmarks/views.py {' '.join(sys.argv[1:])}",
    ]
    table = Table(["views", "test %", "filling", "filled", "bank"], cells, "Views of each image", notes)
    print(table.to_text())
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "notes": notes}, indent=2) + "\n")
    if args.write:
        text = args.write.read_text()
        before, rest = text.split(MARKS[0])
        args.write.write_text(f"{before}{MARKS[0]}\n{table.to_markdown()}{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    main()
