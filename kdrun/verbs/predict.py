"""kdrun predict: classify image files with a network of a run, or with an exported one."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kdrun import console
from kdrun.checks import short, typed_folder, typed_path
from kdrun.command.listings import DEFAULT_OUTPUTS, Words
from kdrun.data import listing
from kdrun.data.decoding import BadImage, Source, Sources, decoded
from kdrun.export.choose import ROLE, choose
from kdrun.export.read import Exported, open_exported
from kdrun.export.sheet import FORMATS, Sheet, in_folder
from kdrun.results.find import find_folder, stored
from kdrun.results.tables import Table

MOST_NAMED = 10
BATCH = 64


@dataclass(frozen=True)
class Answer:
    """The prediction for one file: the most probable classes as (number, name, probability), or an error."""

    file: str
    top: Sequence[tuple[int, str, float]] = ()
    error: str = ""

    def data(self) -> dict[str, Any]:
        """Return the prediction as a dictionary for JSON."""
        if self.error:
            return {"file": self.file, "error": self.error}
        top = [{"class": name, "index": number, "probability": p} for number, name, p in self.top]
        return {"file": self.file, **top[0], "top": top}


def main(rest: Sequence[str]) -> int:
    """Print each file's class and its runners-up; return 2 if a file could not be classified."""
    args = _words(rest)
    images, unreadable = sources(args.images)
    with console.busy("opening the network"):
        network = open_network(args.model, args.role, args.seed, typed_folder(args.outputs, "outputs="))
    if network.warning:
        print(f"kdrun: {network.warning}", file=sys.stderr)
    sheet = network.sheet
    with console.busy(f"classifying {len(images):,} images"):
        answers = list(classified(network, images, args.top))
    if args.json:
        keys = ("title", "role", "model", "seed", "fingerprint")
        description = {k: getattr(sheet, k) for k in keys} | {"runtime": network.runtime, "chosen": network.reason}
        described = [*(answer.data() for answer in answers), *({"file": f, "error": why} for f, why in unreadable)]
        print(json.dumps({"network": description, "images": described}, indent=2, ensure_ascii=False))
    elif any(not answer.error for answer in answers):
        print(_table(answers, network).to_text())
    wrong = [*unreadable, *((answer.file, answer.error) for answer in answers if answer.error)]
    if wrong:
        more = f"; and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        named = "; ".join(f"{file}: {why}" for file, why in wrong[:MOST_NAMED])
        files = f"{len(wrong)} of {len(answers) + len(unreadable)} files"
        print(f"kdrun: {files} could not be classified: {named}{more}", file=sys.stderr)
    return 2 if wrong else 0


def _words(rest: Sequence[str]) -> Namespace:
    parser = Words(prog="predict", add_help=False)
    parser.add_argument("model", nargs="?")
    parser.add_argument("images", nargs="*")
    parser.add_argument("--role")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--outputs", default=DEFAULT_OUTPUTS)
    # the other verbs take KEY=VALUE, so accept that as well
    words = [f"--{word}" if re.match("(role|seed|top|outputs)=", word) else word for word in rest]
    args = parser.parse_intermixed_args(words)
    if args.model is None or not args.images:
        what = "which network" if args.model is None else "which images"
        raise ValueError(f"predict: {what}? Type kdrun predict RUN IMAGES… (see kdrun predict --help)")
    if args.top < 1:
        raise ValueError(f"predict: --top {args.top}: at least 1 class is needed")
    return args


def open_network(name: str, role: str | None, seed: int | None, outputs: Path) -> Exported:
    """Open the network that `name` means: an exported file or its folder, or else a run, a sweep or a fingerprint.

    Raise ValueError if there is no such network, or if a role or seed is typed for an exported file.
    """
    if (file := _exported(name, outputs)) is not None:
        if role is not None or seed is not None:
            raise ValueError(f"{file}: contains a single network; leave role and seed out")
        return open_exported(file)
    choice = choose(name, role or ROLE, seed, outputs)
    artifact = choice.artifact(outputs)
    import torch

    from kdrun.export.network import trained
    from kdrun.export.read import through_torch

    sheet = Sheet.of(artifact, "safetensors", choice.role)
    return Exported(
        sheet, through_torch(trained(artifact), "cpu"), f"torch {torch.__version__}", choice.reason, choice.warning
    )


def _exported(name: str, outputs: Path) -> Path | None:
    """Return the exported file that `name` means; None if it means a run's network in the store."""
    place = typed_path(name)
    if place.suffix in FORMATS or place.is_file():
        return place
    if (place / "spec.json").is_file() or stored(name, outputs):
        return None
    return in_folder(place if place.is_dir() else find_folder(name, outputs))


def sources(names: Sequence[str]) -> tuple[list[Source], list[tuple[str, str]]]:
    """Return the images that names mean, also in folders and .zip archives, and the unreadable names with reasons."""
    images: list[Source] = []
    unreadable: list[tuple[str, str]] = []
    for name in names:
        try:
            place = Path(name).expanduser()
            place.exists()
        except (OSError, ValueError, RuntimeError) as error:
            unreadable.append((short(name), str(getattr(error, "strerror", None) or error)))
            continue
        if place.is_dir() or place.suffix.lower() == ".zip":
            try:
                images += listing.images_in(listing.roots(str(place), "image"), "image")
            except ValueError as error:
                unreadable.append((name, str(error).removeprefix(f"image={place}: ")))
        elif place.exists():
            images.append(Source(str(place.parent), place.name))
        else:
            unreadable.append((name, "there is no such file"))
    return images, unreadable


def classified(network: Exported, images: Sequence[Source], top: int) -> Iterator[Answer]:
    """Yield an answer for each image, in order; an error for one that cannot be decoded."""
    from scipy.special import softmax

    sheet, opened = network.sheet, Sources()

    def read(source: Source) -> NDArray[np.uint8] | str:
        try:
            return decoded(opened, source, sheet.image_size, sheet.channels).pixels
        except BadImage as error:
            return str(error)

    bar = tqdm(total=len(images), desc="classifying", unit="image", delay=0.5, leave=False, disable=None)
    with bar, ThreadPoolExecutor() as pool:
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            pixels = list(pool.map(read, batch))
            sound = [one for one in pixels if not isinstance(one, str)]
            logits = iter(network.classify(np.stack(sound).transpose(0, 3, 1, 2).copy()) if sound else ())
            for source, one in zip(batch, pixels, strict=True):
                bar.update()
                name = str(Path(source.root) / source.member)
                if isinstance(one, str):
                    yield Answer(name, error=one)
                    continue
                p = softmax(next(logits).astype(np.float64))
                best = np.argsort(-p, kind="stable")[:top]  # ties go to the first class, as in training
                yield Answer(name, [(int(i), sheet.classes[i], float(p[i])) for i in best])


def _table(answers: Sequence[Answer], network: Exported) -> Table:
    rows: list[list[Any]] = []
    for answer in (answer for answer in answers if not answer.error):
        best, *others = answer.top
        runners = ", ".join(f"{name} {100 * p:.1f}" for _, name, p in others)
        rows.append([answer.file, best[1], f"{100 * best[2]:.1f}", runners])
    notes = [
        "; ".join(said for said in (network.sheet.title, network.reason, network.runtime) if said),
        f"each image: {network.sheet.preprocessing()}",
    ]
    return Table(["image", "class", "%", "runners-up, %"], rows, notes=notes).without_empty("runners-up, %")
