"""The 1,797 handwritten digits of scikit-learn, which need no download."""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from kdrun.data.sets import Dataset, ImageSet, assemble, statistics
from kdrun.data.splits import stratified
from kdrun.randomness import TEST, key

__all__ = ["digits"]

TEST_IMAGES = 360


def digits(*, name: str, val_fraction: float, split_seed: int) -> Dataset:
    """Return handwritten digits, 8×8, grey, 10 classes; the test set is always the same 360 of them.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998. Their pixels, of 0 to 16,
    are scaled to 0 to 255, so that different values stay different.
    """
    table = _table()
    pixels = np.rint(table[:, :64].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    everything = ImageSet(torch.from_numpy(pixels), torch.from_numpy(table[:, 64].astype(np.int64)))
    test = stratified(everything.labels, TEST_IMAGES, key(TEST))
    rest = torch.ones(len(everything), dtype=torch.bool)
    rest[test] = False
    train = everything.subset(rest.nonzero().flatten())
    mean, std = statistics(train.images)
    return assemble(
        name,
        [str(digit) for digit in range(10)],
        {"train": train, "test": everything.subset(test)},
        mean=mean,
        std=std,
        val_fraction=val_fraction,
        split_seed=split_seed,
    )


def _table() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Read 64 pixels and a label per row from scikit-learn's file, without importing scikit-learn (0.8 s)."""
    package = importlib.util.find_spec("sklearn")
    for folder in (package.submodule_search_locations if package else None) or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # another version may keep the file elsewhere

    loaded = load_digits()
    return np.column_stack([loaded.data, loaded.target])
