"""What checkpoints cost: the share of a training's time that saving takes by the default of checkpoint_every.

    python benchmarks/checkpoint.py [--networks resnet20,resnet8x4,vgg13] [--epochs N] [--seconds N]
                                    [--device cpu|cuda] [--json FILE]

Each network trains alone on synthetic images of CIFAR's shape, with momentum and a validation part, so that a
checkpoint is three times as large as the weights: current weights, momentum and best weights. The number of images is
chosen so that an epoch takes about `--seconds`. The limit, 1%, holds where an epoch takes 10 seconds or more.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from kdrun import cli
from kdrun.console import size
from kdrun.results.tables import Table
from kdrun.training import checkpoint, cohort

LIMIT = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default="resnet20,resnet8x4,vgg13")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=11.0, help="of an epoch")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    rows = []
    for network in args.networks.split(","):
        trained(network, 640, 1, args.device)  # warms up
        tried = trained(network, 1280, 1, args.device)
        images = max(1280, round(1280 * args.seconds / tried["seconds"]))
        rows.append({"network": network, "images": images, **trained(network, images, args.epochs, args.device)})
        print(json.dumps(rows[-1]), file=sys.stderr)
    table = [
        [
            row["network"],
            size(row["bytes"]),
            f"{row['seconds'] / args.epochs:.1f} s",
            f"{row['saved']} in {args.epochs}",
            f"{1000 * row['saving'] / row['saved']:.0f} ms",
            f"{100 * row['saving'] / row['seconds']:.2f}%",
        ]
        for row in rows
    ]
    met = all(row["saving"] <= LIMIT * row["seconds"] for row in rows)
    note = f"{args.device}, {torch.get_num_threads()} threads; limit {LIMIT:.0%}: {'met' if met else 'missed'}"
    print(Table(["network", "checkpoint", "epoch", "saved", "each", "share"], table, notes=[note]).to_text())
    if args.json:
        args.json.write_text(json.dumps({"torch": str(torch.__version__), "rows": rows}, indent=2) + "\n")


def trained(network: str, images: int, epochs: int, device: str) -> dict[str, Any]:
    """Train a network as the command line does; return the seconds of training and of saving, and what was saved."""
    spent: dict[str, Any] = {"seconds": 0.0, "saving": 0.0, "saved": 0, "bytes": 0}
    save, train = checkpoint.save, cohort.train

    def timed_save(folder: Path, number: int, state: dict[str, Any]) -> None:
        began = time.perf_counter()
        save(folder, number, state)
        spent["saving"] += time.perf_counter() - began
        spent["saved"] += 1
        spent["bytes"] = max(file.stat().st_size for file in folder.glob("*.ckpt"))

    def timed_train(*arguments: Any) -> Iterator[cohort.Event]:
        began = time.perf_counter()
        yield from train(*arguments)
        spent["seconds"] += time.perf_counter() - began

    with tempfile.TemporaryDirectory() as outputs, contextlib.redirect_stdout(io.StringIO()):
        words = [
            "train", "baseline", "dataset=synthetic", f"dataset.train_images={images}", "dataset.test_images=256",
            "dataset.crop_padding=4", f"student={network}", "seeds=1", f"recipe.epochs={epochs}",
            "recipe.warmup_epochs=0", f"device={device}", f"outputs={outputs}", "report=false", "tracker=none",
        ]  # fmt: skip
        with mock.patch.object(checkpoint, "save", timed_save), mock.patch.object(cohort, "train", timed_train):
            try:
                cli.main(words)
            except SystemExit as end:
                if end.code:
                    raise
    return spent


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
