"""Images that occur in two parts of a data set: a network memorises them, which inflates the accuracy."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

log = logging.getLogger(__name__)
PARTS = ("train", "val", "test")
MARK_BYTES = 16
"""Length of the hash by which equal images are found."""


class Marked(NamedTuple):
    """An image, with a hash of its pixels."""

    mark: bytes
    name: str
    label: int


def mark(pixels: Any) -> bytes:
    """Return the hash of an image's pixels, given as a contiguous buffer."""
    return hashlib.blake2b(pixels, digest_size=MARK_BYTES).digest()


def marks(images: Tensor) -> list[bytes]:
    """Return the hash of each image of a tensor (N, C, H, W), equal to that of the decoded file."""
    return [mark(row.data) for row in map(np.ascontiguousarray, images.permute(0, 2, 3, 1).cpu().numpy())]


def warn(parts: Mapping[str, Sequence[Marked]]) -> None:
    """Warn about validation and test images that have the same pixels as an image of an earlier part."""
    seen: dict[bytes, Marked] = {}
    for part in (part for part in PARTS if part in parts):
        repeated = [(image, seen[image.mark]) for image in parts[part] if image.mark in seen]
        if repeated:
            image, first = repeated[0]
            other = sum(image.label != before.label for image, before in repeated)
            log.warning(
                "%d of %d %s images are also training%s images%s, e.g. %s is %s: this inflates the accuracy; "
                "remove them from one of the two",
                len(repeated),
                len(parts[part]),
                part,
                " or validation" if part == "test" and "val" in parts else "",
                f", {other} under another class" if other else "",
                image.name,
                first.name,
            )
        for image in parts[part]:
            seen.setdefault(image.mark, image)
