"""Is the default recipe of `dataset=folder` sensible for few images? Six others of equal length beside it.

    python benchmarks/recipes.py TRAIN.zip TEST.zip --json FILE      (or one folder with train/CLASS and test/CLASS)

It takes every tenth class of the set, with `--images` training images in all and all test images of these classes. Each
recipe trains each network with each seed, as `kdrun train baseline` does; the epoch is chosen on validation, and so is
the best of the six. Trainings stay in `--outputs`, so that the script resumes where it was stopped.
"""

import argparse
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

SGD = ["recipe.optimizer=sgd", "recipe.momentum=0.9", "recipe.weight_decay=5e-4", "recipe.decay_norm_and_bias=true"]
ADAMW = ["recipe.optimizer=adamw", "recipe.weight_decay=0.05"]
PLAIN = ["recipe=cosine", "recipe.label_smoothing=0", "recipe.clip_norm=null", "recipe.ema_decay=null"]  # batch: 128
DEFAULT = "default"
RECIPES = {
    DEFAULT: [],
    "SGD 0.1": [*SGD, *PLAIN, "recipe.lr=0.1"],
    "SGD 0.05": [*SGD, *PLAIN, "recipe.lr=0.05"],
    "AdamW 1e-3": [*ADAMW, *PLAIN, "recipe.lr=1e-3"],
    "AdamW 3e-3": [*ADAMW, *PLAIN, "recipe.lr=3e-3"],
    "Adam one-cycle": ["recipe=quick", "recipe.lr=5e-3"],
    "cosine, no average": ["recipe=cosine", "recipe.ema_decay=null"],
}


def sliced(roots: list[Path], images: int, every: int, place: Path) -> Path:
    """Return a folder with `images` training images in all, from one class in `every`; they are copied there once."""
    folder = place / f"{every}-{images}"
    if folder.is_dir():
        return folder
    partial = folder.with_suffix(f".{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    found = {name: root for root in roots for name in members(root)}
    classes = sorted({name.split("/")[1] for name in found})[every // 2 :: every]
    for label in classes:
        own = sorted(name for name in found if name.split("/")[1] == label)
        train = [name for name in own if name.startswith("train/")][: images // len(classes)]
        for name in [*train, *(name for name in own if name.startswith("test/"))]:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content(found[name], name))
    partial.rename(folder)
    return folder


def members(root: Path) -> list[str]:
    if root.is_dir():
        return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    return [name for name in archive(root).namelist() if not name.endswith("/")]


def content(root: Path, name: str) -> bytes:
    if root.is_dir():
        return (root / name).read_bytes()
    return archive(root).read(name)


@functools.cache
def archive(root: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(root)


def trained(folder: Path, network: str, words: list[str], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Train one network with one recipe and every seed, and return the results."""
    name = "".join(c if c.isalnum() else "-" for c in " ".join([folder.name, network, str(asked.epochs), *words]))
    run = asked.outputs / "runs" / name
    command = [sys.executable, "-m", "kdrun", "train", "baseline", "dataset=folder", f"dataset.root={folder}"]
    command += [f"student={network}", f"seeds={asked.seeds}", f"precision={asked.precision}", *words]
    command += [f"recipe.epochs={asked.epochs}", f"outputs={asked.outputs}", f"hydra.run.dir={run}"]
    environment = {**os.environ, "KDRUN_TRACKER": "none", "KDRUN_REPORT": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    parts = json.loads((run / "run.json").read_text())["artifacts"]
    return [json.loads((asked.outputs / "store" / part["folder"] / "result.json").read_text()) for part in parts]


def summed_up(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean validation and test accuracy in per cent, and the standard error of the latter."""
    val, test = ([100 * r["selected"][part]["accuracy"] for r in results] for part in ("val", "test"))
    error = statistics.stdev(test) / len(test) ** 0.5 if len(test) > 1 else 0.0
    return {"val": statistics.mean(val), "test": statistics.mean(test), "error": error, "points": test}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("roots", nargs="+", type=Path)
    parser.add_argument("--images", nargs="+", type=int, default=[50, 200, 500, 1000, 5000])
    parser.add_argument("--networks", nargs="+", default=["resnet8", "resnet20"])
    parser.add_argument("--every", type=int, default=10, help="every how many classes one is taken")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--outputs", type=Path, default=Path("outputs/recipes"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    asked.outputs = asked.outputs.absolute()
    rows: list[dict[str, Any]] = []
    print(f"| network | images | {' | '.join(RECIPES)} | default − best on validation |")
    print(f"|---|---{'|---' * (len(RECIPES) + 1)}|", flush=True)
    for network in asked.networks:
        for images in asked.images:
            folder = sliced(asked.roots, images, asked.every, asked.outputs / "slices")
            found = {name: summed_up(trained(folder, network, words, asked)) for name, words in RECIPES.items()}
            best = max((name for name in found if name != DEFAULT), key=lambda name: found[name]["val"])
            ours, theirs = found[DEFAULT], found[best]
            gap = ours["test"] - theirs["test"]
            allowed = max(2.0, 2 * (ours["error"] ** 2 + theirs["error"] ** 2) ** 0.5)
            rows.append({"network": network, "images": images, "epochs": asked.epochs, "seeds": asked.seeds, **found})
            cells = " | ".join(f"{one['test']:.1f} ± {one['error']:.1f}" for one in found.values())
            verdict = f"{gap:+.1f} ({best}; allowed −{allowed:.1f}){'' if gap >= -allowed else ' MISSED'}"
            print(f"| {network} | {images} | {cells} | {verdict} |", flush=True)
            if asked.json is not None:
                asked.json.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
