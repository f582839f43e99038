"""CIFAR-10 and CIFAR-100, read from (or downloaded into) the files that torchvision keeps too.

Alex Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdrun.data.download import File, fetch
from kdrun.data.places import data_root
from kdrun.data.sets import Dataset, ImageSet, assemble

__all__ = ["cifar10", "cifar100"]

URLS = ("https://www.cs.toronto.edu/~kriz/",)
CIFAR10 = File("cifar-10-python.tar.gz", md5="c58f30108f718f92721af3b95e74349a")
CIFAR100 = File("cifar-100-python.tar.gz", md5="eb9058c3a382ffc7106e4002c42a8d85")


def cifar10(
    *, name: str, root: str | None, val_fraction: float, split_seed: int, crop_padding: int, flip: bool
) -> Dataset:
    """Objects, 32×32, colour, 10 classes, 50,000 and 10,000 images (Krizhevsky, 2009).

    Files lie in `root`/cifar-10-batches-py; a missing folder is unpacked from its archive beside it, which is
    downloaded if need be. Raises ValueError for damaged files, and says what to put where without a network.
    """
    folder = _folder(data_root(root), "cifar-10-batches-py", CIFAR10, "batches.meta", name)
    return assemble(
        name,
        _unpickled(folder / "batches.meta")["label_names"],
        {
            "train": _images([folder / f"data_batch_{i}" for i in range(1, 6)], "labels"),
            "test": _images([folder / "test_batch"], "labels"),
        },
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        val_fraction=val_fraction,
        split_seed=split_seed,
        crop_padding=crop_padding,
        flip=flip,
    )


def cifar100(
    *, name: str, root: str | None, val_fraction: float, split_seed: int, crop_padding: int, flip: bool
) -> Dataset:
    """Objects, 32×32, colour, 100 classes, 50,000 and 10,000 images (Krizhevsky, 2009).

    Files lie in `root`/cifar-100-python; a missing folder is unpacked from its archive beside it, which is
    downloaded if need be. Raises ValueError for damaged files, and says what to put where without a network.
    """
    folder = _folder(data_root(root), "cifar-100-python", CIFAR100, "meta", name)
    return assemble(
        name,
        _unpickled(folder / "meta")["fine_label_names"],
        {
            "train": _images([folder / "train"], "fine_labels"),
            "test": _images([folder / "test"], "fine_labels"),
        },
        mean=(0.5071, 0.4867, 0.4408),  # as the published distillation code has it
        std=(0.2675, 0.2565, 0.2761),
        val_fraction=val_fraction,
        split_seed=split_seed,
        crop_padding=crop_padding,
        flip=flip,
    )


def _folder(root: Path, folder: str, archive: File, last: str, name: str) -> Path:
    """The folder with the set's files, unpacked first if need be."""
    if not (root / folder / last).is_file():
        fetch([archive], URLS, root, name)
        with tarfile.open(root / archive.name) as tar:
            tar.extractall(root, filter="data")
    return root / folder


def _images(files: Sequence[Path], key: str) -> ImageSet:
    contents = [_unpickled(file) for file in files]
    try:
        pixels = np.concatenate([np.asarray(c["data"], dtype=np.uint8) for c in contents]).reshape(-1, 3, 32, 32)
        labels = torch.tensor([label for c in contents for label in c[key]], dtype=torch.int64)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{files[0]}: not the file that the set has there ({error!r}); delete its folder") from error
    return ImageSet(torch.from_numpy(pixels), labels)


class _OnlyArrays(pickle.Unpickler):
    """An unpickler that builds arrays and plain containers, and refuses everything else uncalled."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if module in {"numpy.core.multiarray", "numpy._core.multiarray"} and name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) == ("_codecs", "encode"):  # how Python 3 pickles bytes for Python 2
            import codecs

            return codecs.encode
        raise pickle.UnpicklingError(f"asks for {module}.{name}")


def _unpickled(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = _OnlyArrays(file, encoding="latin1").load()
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: cannot be read as a file of CIFAR ({error}); delete its folder to unpack anew"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a file of CIFAR; delete its folder to unpack anew")
    return content
