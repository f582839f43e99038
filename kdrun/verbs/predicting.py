"""What kdrun predict is made of: a network that answers, image files as its data set reads them, and answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kdrun.data import listing
from kdrun.data.decoding import BadImage, Source, Sources, decoded
from kdrun.export.choose import ROLE, choose
from kdrun.export.read import Exported, open_exported
from kdrun.export.sheet import FORMATS, Sheet, in_folder
from kdrun.results.find import find_folder, stored

BATCH = 64


def network(name: str, role: str | None, seed: int | None, outputs: Path) -> Exported:
    """Open what `name` means: an exported file or its folder, or else a run, a sweep or a fingerprint.

    Raises ValueError where it means nothing, and where role or seed are typed for a single network.
    """
    file = _exported(name, outputs)
    if file is not None:
        if role is not None or seed is not None:
            raise ValueError(f"{file}: holds a single network; leave role and seed out")
        return open_exported(file)
    choice = choose(name, role or ROLE, seed, outputs)
    artifact = choice.artifact(outputs)
    import torch

    from kdrun.export.network import trained
    from kdrun.export.read import through_torch

    sheet = Sheet.of(artifact, "safetensors", choice.role)
    return Exported(sheet, through_torch(trained(artifact), "cpu"), f"torch {torch.__version__}", choice.reason)


def _exported(name: str, outputs: Path) -> Path | None:
    """Return the model file that is meant; None where it is a run's network in the store."""
    place = Path(name).expanduser()
    if place.suffix in FORMATS or place.is_file():
        return place
    if (place / "spec.json").is_file() or stored(name, outputs):
        return None
    return in_folder(place if place.is_dir() else find_folder(name, outputs))


def sources(names: Sequence[str]) -> tuple[list[Source], list[tuple[str, str]]]:
    """Give the images that are meant, those of folders and .zip archives too; and what means none, with the reason."""
    found: list[Source] = []
    wrong: list[tuple[str, str]] = []
    for name in names:
        place = Path(name).expanduser()
        if place.is_dir() or place.suffix.lower() == ".zip":
            try:
                found += listing.images_in(listing.roots(str(place), "image"), "image")
            except ValueError as error:
                wrong.append((name, str(error).removeprefix(f"image={place}: ")))
        elif place.exists():
            found.append(Source(str(place.parent), place.name))
        else:
            wrong.append((name, "there is no such file"))
    return found, wrong


@dataclass(frozen=True)
class Answer:
    """What a network says to one file: its likeliest classes as (number, name, probability), or why it says nothing."""

    file: str
    top: Sequence[tuple[int, str, float]] = ()
    error: str = ""

    def data(self) -> dict[str, Any]:
        """Return it as JSON."""
        if self.error:
            return {"file": self.file, "error": self.error}
        top = [{"class": name, "index": number, "probability": p} for number, name, p in self.top]
        return {"file": self.file, **top[0], "top": top}


def classified(network: Exported, found: Sequence[Source], top: int) -> Iterator[Answer]:
    """Classify images in order; what cannot be decoded gets its reason."""
    from scipy.special import softmax

    sheet, opened = network.sheet, Sources()

    def read(source: Source) -> NDArray[np.uint8] | str:
        try:
            return decoded(opened, source, sheet.image_size, sheet.channels).pixels
        except BadImage as error:
            return str(error)

    bar = tqdm(total=len(found), desc="classifying", unit="image", delay=2, leave=False, disable=None)
    with bar, ThreadPoolExecutor() as pool:
        for start in range(0, len(found), BATCH):
            batch = found[start : start + BATCH]
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
                best = np.argsort(-p, kind="stable")[:top]  # of equal ones the first, as in training
                yield Answer(name, [(int(i), sheet.classes[i], float(p[i])) for i in best])
