"""Some test images of a run, kept beside its tables so that its page can show the networks' answers to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation.accuracy import correct

FILE = "examples.safetensors"
USUAL = 5  # images, if none are named


def choose(logits: NDArray[np.floating], labels: NDArray[np.integer], count: int = USUAL) -> list[int]:
    """Return the indices of test images on which the teacher is right, with the median confidence of their class.

    `logits` (N, C) are the teacher's, `labels` (N,). The images are of different classes, evenly spread over those
    of which the teacher gets any image right, in the order of the classes.
    """
    from scipy.special import log_softmax

    sure = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    right = correct(logits, labels)
    known = np.unique(labels[right])
    places = np.unique(np.linspace(0, max(0, len(known) - 1), min(count, len(known))).round().astype(int))
    by_class = (np.flatnonzero(right & (labels == c)) for c in known[places])
    return [int(own[np.argsort(sure[own], kind="stable")[len(own) // 2]]) for own in by_class]


def write(folder: Path, indices: list[int], pixels: NDArray[np.uint8]) -> None:
    """Write the pixels (n, H, W, C), 0 to 255, of the test images at `indices` into a run's folder."""
    from safetensors.numpy import save

    from kdrun.files import write_atomic

    kept: dict[str, NDArray[Any]] = {"index": np.array(indices, dtype=np.int64), "pixels": np.ascontiguousarray(pixels)}
    write_atomic(folder / FILE, save(kept))


def read(folder: Path) -> tuple[list[int], NDArray[np.uint8]] | None:
    """Return the indices and the pixels (n, H, W, C) that a run kept; None if it kept none.

    Raise ValueError if the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / FILE
    if not path.exists():
        return None
    try:
        kept: dict[str, Any] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from None
    return [int(i) for i in kept["index"]], kept["pixels"]
