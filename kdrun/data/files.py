"""From a list of image files to a data set: what folders and tables have in common."""

import logging
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch

from kdrun.data import layout, repeated
from kdrun.data.decoding import Source
from kdrun.data.sets import Dataset, assemble, moments
from kdrun.data.splits import draw_test
from kdrun.data.survey import Decoding, first_size, read

ON_BAD_IMAGE = ("stop", "skip")
log = logging.getLogger(__name__)


def refuse_settings(*, channels: int | None, on_bad_image: str, max_resident_gb: float) -> None:
    """Raise ValueError if a setting is out of range."""
    if on_bad_image not in ON_BAD_IMAGE:
        raise ValueError(f"dataset.on_bad_image={on_bad_image}: choose {' or '.join(ON_BAD_IMAGE)}")
    if channels not in (None, 1, 3):
        raise ValueError(f"dataset.channels={channels}: choose 1 (grey), 3 (colour) or null (as found)")
    if max_resident_gb < 0:
        raise ValueError(f"dataset.max_resident_gb={max_resident_gb:g}: must be 0 (always stream) or above")


def from_files(
    images: layout.Listing,
    *,
    name: str,
    size: int | Sequence[int] | None,
    channels: int | None,
    on_bad_image: str,
    max_resident_gb: float,
    val_fraction: float,
    split_seed: int,
    test_fraction: float | None,
) -> Dataset:
    """Return the data set of these files; channel statistics are those of train/.

    `size` (an int, or [height, width]) resizes, `channels` (1 or 3) converts; by default both are those of the files.
    `test_fraction` draws test images from "train" by `split_seed`. Sets of up to `max_resident_gb` 10⁹ bytes when
    decoded stay in memory, and a decoded copy is kept on disk; larger ones are decoded as they are needed, to the same
    pixels. Raise ValueError if anything is wrong with the files or the settings.
    """
    if test_fraction is not None:
        images = _with_test(images, test_fraction, split_seed)
    height, width = image_size(size, "dataset.size") or first_size(list(chain(*images.sources.values())))
    decode = Decoding((height, width), channels, fixed=size is not None, skip=on_bad_image == "skip")
    count = sum(map(len, images.sources.values()))
    resident = count * height * width * (channels or 3) <= max_resident_gb * 1e9
    survey = read(images.sources, {k: torch.tensor(v) for k, v in images.labels.items()}, decode, resident=resident)
    repeated.warn(
        {
            part: list(map(repeated.Marked, survey.marks[part], map(str, sources), survey.parts[part].labels.tolist()))
            for part, sources in survey.sources.items()
        }
    )
    mean, std = moments(survey.histogram)
    return assemble(
        name,
        images.classes,
        survey.parts,
        mean=mean,
        std=std,
        val_fraction=val_fraction,
        split_seed=split_seed,
        digests=survey.digests,
        names=names(survey.sources["train"]),
    )


def names(sources: Sequence[Source]) -> list[str]:
    """Return the name that identifies each image in a user's own files: its path below the folder or in the archive.

    With several folders and archives, it is the path below the innermost folder that contains them all.
    """
    roots = {source.root for source in sources}
    if len(roots) < 2:
        return [source.member for source in sources]
    above = os.path.commonpath([os.path.abspath(root) for root in roots])
    below = {root: Path(os.path.relpath(root, above)).as_posix() for root in roots}
    return [f"{below[source.root]}/{source.member}".removeprefix("./") for source in sources]


def _with_test(images: layout.Listing, fraction: float, split_seed: int) -> layout.Listing:
    """Return the images with a "test" drawn from "train"; it counts for the data's identity, like any test images."""
    sources, labels = images.sources["train"], torch.tensor(images.labels["train"])
    train, test = draw_test(labels, images.classes, fraction, split_seed)
    parts = {"train": train, "test": test}
    return layout.Listing(
        images.classes,
        {**images.sources, **{part: [sources[i] for i in rows.tolist()] for part, rows in parts.items()}},
        {**images.labels, **{part: labels[rows].tolist() for part, rows in parts.items()}},
    )


def image_size(size: int | Sequence[int] | None, key: str) -> tuple[int, int] | None:
    """Return height and width of the typed size: one number for a square, two numbers, or None."""
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(s, int) and not isinstance(s, bool) and 0 < s <= 4096 for s in sides):
        raise ValueError(f"{key}={size}: needs one number of pixels, or [height,width], each from 1 to 4096")
    return sides[0], sides[1]
