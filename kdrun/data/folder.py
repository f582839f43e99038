"""Your own images: folders or .zip archives with train/CLASS/* and test/CLASS/* inside."""

import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch

from kdrun.data import layout, listing
from kdrun.data.decoding import Source
from kdrun.data.sets import Dataset, assemble, moments
from kdrun.data.splits import draw_test
from kdrun.data.survey import Decoding, Survey, first_size, read

__all__ = ["folder"]

log = logging.getLogger(__name__)
ON_BAD_IMAGE = ("stop", "skip")


def folder(
    *,
    name: str,
    root: Any,
    size: int | Sequence[int] | None,
    channels: int | None,
    on_bad_image: str,
    max_resident_gb: float,
    val_fraction: float,
    split_seed: int,
    crop_padding: int,
    flip: bool,
    test_fraction: float | None = None,  # runs from before it existed have none
) -> Dataset:
    """Return the images below train/CLASS, test/CLASS and perhaps val/CLASS of `root`.

    `root` is a folder, a .zip archive, or a list of them that are taken together. Class names are those of
    the folders, in alphabetical order; channel statistics are those of train/. `size` (an int, or [height,
    width]) resizes, `channels` (1 or 3) converts; by default both are those of the files. If there is no test/,
    `test_fraction` draws test images by `split_seed`, and `root` may be just a folder per class. Sets of up to
    `max_resident_gb` 10⁹ bytes when decoded stay in memory, and a decoded copy is kept on disk; larger ones
    are decoded as they are needed, to the same pixels.
    Raise ValueError, before training starts, if anything is wrong with the files or the settings.
    """
    if on_bad_image not in ON_BAD_IMAGE:
        raise ValueError(f"dataset.on_bad_image={on_bad_image}: choose {' or '.join(ON_BAD_IMAGE)}")
    if channels not in (None, 1, 3):
        raise ValueError(f"dataset.channels={channels}: choose 1 (grey), 3 (colour) or null (as found)")
    if max_resident_gb < 0:
        raise ValueError(f"dataset.max_resident_gb={max_resident_gb:g}: must be 0 (always stream) or above")
    if root is None:
        raise ValueError(f"dataset.root: which images? Type dataset.root=DIR or FILE.zip, with {layout.LAYOUT} inside")
    images = layout.classified(listing.roots(root, "dataset.root"), test_fraction=test_fraction)
    if test_fraction is not None:
        images = _with_test(images, test_fraction, split_seed)
    height, width = image_size(size, "dataset.size") or first_size(list(chain(*images.sources.values())))
    decode = Decoding((height, width), channels, fixed=size is not None, skip=on_bad_image == "skip")
    count = sum(map(len, images.sources.values()))
    resident = count * height * width * (channels or 3) <= max_resident_gb * 1e9
    survey = read(images.sources, {k: torch.tensor(v) for k, v in images.labels.items()}, decode, resident=resident)
    _warn_of_repeated(survey)
    mean, std = moments(survey.histogram)
    return assemble(
        name,
        images.classes,
        survey.parts,
        mean=mean,
        std=std,
        val_fraction=val_fraction,
        split_seed=split_seed,
        crop_padding=crop_padding,
        flip=flip,
        digests=survey.digests,
    )


def _with_test(images: layout.Listing, fraction: float, split_seed: int) -> layout.Listing:
    """Return the images with a "test" drawn from "train", which identifies the data as any test images do."""
    sources, labels = images.sources["train"], torch.tensor(images.labels["train"])
    train, test = draw_test(labels, fraction, split_seed)
    if lacking := sorted(set(labels.tolist()) - set(labels[test].tolist())):
        raise ValueError(
            f"dataset.test_fraction={fraction:g}: {images.classes[lacking[0]]} has a single image, too few to train "
            "and to test on; add some, or remove the class"
        )
    log.info(
        "dataset.test_fraction=%g: %d of %d images are drawn for testing (dataset.split_seed=%d)",
        fraction,
        len(test),
        len(labels),
        split_seed,
    )
    parts = {"train": train, "test": test}
    return layout.Listing(
        images.classes,
        {**images.sources, **{part: [sources[i] for i in rows.tolist()] for part, rows in parts.items()}},
        {**images.labels, **{part: labels[rows].tolist() for part, rows in parts.items()}},
    )


def _warn_of_repeated(survey: Survey) -> None:
    """Warn of validation and test images whose pixels are also those of an image of an earlier part."""
    seen: dict[bytes, tuple[Source, int]] = {}
    for part in (part for part in layout.PARTS if part in survey.sources):
        rows = list(zip(survey.marks[part], survey.sources[part], survey.parts[part].labels.tolist(), strict=True))
        repeated = [(source, label, *seen[mark]) for mark, source, label in rows if mark in seen]
        if repeated:
            source, _, first, _ = repeated[0]
            other = sum(label != before for _, label, _, before in repeated)
            log.warning(
                "%d of %d %s images are also training%s images%s, e.g. %s is %s: accuracy on them flatters; "
                "remove them from one of the two",
                len(repeated),
                len(rows),
                part,
                " or validation" if part == "test" and "val" in survey.sources else "",
                f", {other} under another class" if other else "",
                source,
                first,
            )
        for mark, source, label in rows:
            seen.setdefault(mark, (source, label))


def image_size(size: int | Sequence[int] | None, key: str) -> tuple[int, int] | None:
    """Return height and width of the typed size: one number for a square, two numbers, or None."""
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(s, int) and not isinstance(s, bool) and 0 < s <= 4096 for s in sides):
        raise ValueError(f"{key}={size}: needs one number of pixels, or [height,width], each from 1 to 4096")
    return sides[0], sides[1]
