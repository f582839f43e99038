"""The folders of data sets and of decoded copies. Does not import torch."""

import os
from pathlib import Path
from typing import Any


def data_root(root: str | None = None) -> Path:
    """Return the folder of the downloaded sets: `root` as typed, else KDRUN_DATA, else ~/.cache/kdrun."""
    return Path(root or os.environ.get("KDRUN_DATA") or "~/.cache/kdrun").expanduser()


def to_download_into(root: str | None) -> Path:
    """Return the folder of the downloaded sets. Raise ValueError if a typed one does not exist: it may be mistyped."""
    if root is not None and not Path(root).expanduser().exists():
        raise ValueError(
            f"dataset.root={root}: there is no such folder; name the folder that has the set, or make an empty one "
            "into which it is downloaded"
        )
    return data_root(root)


_IDX = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
FILES = {  # files of a downloaded set by the `use` of its YAML; one of each tuple is enough
    "mnist.mnist": [(f"MNIST/raw/{name}", f"MNIST/raw/{name}.gz") for name in _IDX],
    "mnist.fashion_mnist": [(f"FashionMNIST/raw/{name}", f"FashionMNIST/raw/{name}.gz") for name in _IDX],
    "cifar.cifar10": [("cifar-10-batches-py/batches.meta", "cifar-10-python.tar.gz")],
    "cifar.cifar100": [("cifar-100-python/meta", "cifar-100-python.tar.gz")],
}


def here(use: str, root: Any) -> bool:
    """Return whether a set is on this machine; True for one that is never downloaded, and for a list of places."""
    if not isinstance(root, str | None):
        return True
    folder = data_root(root)
    return all(any((folder / name).is_file() for name in names) for names in FILES.get(use, ()))


def cache_root() -> Path:
    """Return the folder of decoded copies, which may be deleted: KDRUN_CACHE, else ~/.cache/kdrun/decoded."""
    return Path(os.environ.get("KDRUN_CACHE") or "~/.cache/kdrun/decoded").expanduser()
