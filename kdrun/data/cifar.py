"""CIFAR-10 and CIFAR-100, from (or downloaded into) the same files as torchvision's, or from their images.

Alex Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

import codecs
import pickle
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from kdrun.data import layout, listing
from kdrun.data.download import File, fetch
from kdrun.data.places import to_download_into
from kdrun.data.sets import Dataset, ImageSet, assemble
from kdrun.data.survey import Decoding, first_size, read

__all__ = ["cifar10", "cifar100"]

URLS = ("https://www.cs.toronto.edu/~kriz/",)
SIZE = (32, 32)


class Files(NamedTuple):
    """The files of one of the sets, the keys of classes and labels in them, and its channel statistics."""

    archive: File
    folder: str
    meta: str
    class_names: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: str
    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CIFAR10 = Files(
    File("cifar-10-python.tar.gz", md5="c58f30108f718f92721af3b95e74349a"),
    "cifar-10-batches-py",
    "batches.meta",
    "label_names",
    tuple(f"data_batch_{i}" for i in range(1, 6)),
    ("test_batch",),
    "labels",
    10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
CIFAR100 = Files(
    File("cifar-100-python.tar.gz", md5="eb9058c3a382ffc7106e4002c42a8d85"),
    "cifar-100-python",
    "meta",
    "fine_label_names",
    ("train",),
    ("test",),
    "fine_labels",
    100,
    mean=(0.5071, 0.4867, 0.4408),  # as the published distillation code has it
    std=(0.2675, 0.2565, 0.2761),
)


def cifar10(*, name: str, root: Any, val_fraction: float, split_seed: int) -> Dataset:
    """Return objects, 32×32, colour, 10 classes, 50,000 images to train and 10,000 to test (Krizhevsky, 2009).

    Files are in `root`/cifar-10-batches-py; a missing folder is unpacked from its archive beside it, which is
    downloaded if needed. `root` may also be the images themselves: a folder, a .zip archive, or a list of them,
    with train/CLASS/* and test/CLASS/*. Raise ValueError if files are damaged, if images are not the set's, or, with
    the files to put there by hand, if a needed download fails.
    """
    return _dataset(CIFAR10, root, name, val_fraction=val_fraction, split_seed=split_seed)


def cifar100(*, name: str, root: Any, val_fraction: float, split_seed: int) -> Dataset:
    """Return objects of 100 classes, with files in `root`/cifar-100-python, otherwise as `cifar10`."""
    return _dataset(CIFAR100, root, name, val_fraction=val_fraction, split_seed=split_seed)


def _dataset(files: Files, root: Any, name: str, **split: Any) -> Dataset:
    """Return a set, from its own files or from its images."""
    if images := _as_images(root, files, name):
        classes, parts = _from_images(images, files.num_classes, name)
    else:
        folder = _folder(to_download_into(root), files, name)
        named = {"train": files.train, "test": files.test}
        parts = {part: _images([folder / file for file in names], files.labels) for part, names in named.items()}
        classes = _unpickled(folder / files.meta)[files.class_names]
    return assemble(name, classes, parts, mean=files.mean, std=files.std, **split)


def _as_images(root: Any, files: Files, name: str) -> list[str] | None:
    """Return the folders and archives of images in `root`; None if it has, or is to get, the set's own files.

    If a folder holds archives of parts under several names, those with this set's name are taken.
    """
    if root is None:
        return None
    place = None if isinstance(root, list | tuple) else Path(root).expanduser()
    if place is None or place.is_file() or place.suffix.lower() == ".zip":
        return listing.roots(root, "dataset.root")
    if not place.is_dir() or (place / files.folder).is_dir() or (place / files.archive.name).is_file():
        return None
    if layout.part_folders(str(place)):
        return [str(place)]
    archives = layout.part_archives(str(place))
    named = [paths for prefix, paths in archives.items() if re.sub(r"\W|_", "", prefix).lower() == name]
    return named[0] if named else [str(place)] if archives else None


def _from_images(places: Sequence[str], num_classes: int, name: str) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Return class names, and the parts. The official order of classes is alphabetical, as for folders."""
    listed = layout.classified(places)
    where = f"dataset={name} dataset.root={', '.join(places)}"
    if len(listed.classes) != num_classes:
        raise ValueError(
            f"{where}: has {len(listed.classes)} classes, but the set has {num_classes}; dataset=folder takes any "
            f"number"
        )
    if (size := first_size([source for part in listed.sources.values() for source in part])) != SIZE:
        raise ValueError(
            f"{where}: its images are {size[1]}×{size[0]}, but the set's are 32×32; dataset=folder takes any size"
        )
    how = Decoding(SIZE, 3, fixed=False, skip=False)
    labels = {part: torch.tensor(values) for part, values in listed.labels.items()}
    parts: dict[str, ImageSet] = read(listed.sources, labels, how, resident=True).parts
    return listed.classes, parts


def _folder(root: Path, files: Files, name: str) -> Path:
    """Return the folder with the set's files, unpacked first if need be."""
    if not (root / files.folder / files.meta).is_file():
        fetch([files.archive], URLS, root, name)
        with tarfile.open(root / files.archive.name) as tar:
            tar.extractall(root, filter="data")
    return root / files.folder


def _images(files: Sequence[Path], key: str) -> ImageSet:
    contents = [_unpickled(file) for file in files]
    try:
        pixels = np.concatenate([np.asarray(c["data"], dtype=np.uint8) for c in contents]).reshape(-1, 3, 32, 32)
        labels = torch.tensor([label for c in contents for label in c[key]], dtype=torch.int64)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{files[0]}: is not the original file ({error!r}); delete its folder") from error
    return ImageSet(torch.from_numpy(pixels), labels)


class _OnlyArrays(pickle.Unpickler):
    """An unpickler that builds arrays and plain containers, and refuses everything else without calling it."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if module in {"numpy.core.multiarray", "numpy._core.multiarray"} and name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) == ("_codecs", "encode"):  # how Python 3 pickles bytes for Python 2
            return codecs.encode
        raise pickle.UnpicklingError(f"asks for {module}.{name}")


def _unpickled(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = _OnlyArrays(file, encoding="latin1").load()
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: cannot be read as a CIFAR file ({error}); delete its folder to unpack it again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a CIFAR file; delete its folder to unpack it again")
    return content
