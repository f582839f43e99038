"""MNIST and Fashion-MNIST, read from (or downloaded into) the same IDX files as torchvision's."""

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdrun.data.download import File, fetch
from kdrun.data.places import to_download_into
from kdrun.data.sets import Dataset, ImageSet, assemble

__all__ = ["fashion_mnist", "mnist"]

MNIST_URLS = ("https://ossci-datasets.s3.amazonaws.com/mnist/",)
MNIST_FILES = (
    File("train-images-idx3-ubyte.gz", md5="f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    File("train-labels-idx1-ubyte.gz", md5="d53e105ee54ea40749a09fcbcd1e9432"),
    File("t10k-images-idx3-ubyte.gz", md5="9fb629c4189551a2d022fa330f9573f3"),
    File("t10k-labels-idx1-ubyte.gz", md5="ec29112dd5afa0611ce80d1b7f02629c"),
)
FASHION_URLS = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
FASHION_FILES = (
    File("train-images-idx3-ubyte.gz", md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    File("train-labels-idx1-ubyte.gz", md5="25c81989df183df01b3e8a0aad5dffbe"),
    File("t10k-images-idx3-ubyte.gz", md5="bef4ecab320f06d8554ea6380940ec79"),
    File("t10k-labels-idx1-ubyte.gz", md5="bb300cfdad3c16e7a12a480ee83cd310"),
)
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
)  # fmt: skip


def mnist(*, name: str, root: str | None, val_fraction: float, split_seed: int) -> Dataset:
    """Return handwritten digits, 28×28, grey, 10 classes, 60,000 to train and 10,000 to test (LeCun et al., 1998).

    Files are in `root`/MNIST/raw, plain or as .gz; missing ones are downloaded.
    Raise ValueError if a file is damaged, or, with the files to put there by hand, if a download is not possible.
    """
    train, test = _parts(to_download_into(root) / "MNIST" / "raw", MNIST_FILES, MNIST_URLS, name)
    return assemble(
        name,
        [str(digit) for digit in range(10)],
        {"train": train, "test": test},
        mean=(0.1307,),
        std=(0.3081,),
        val_fraction=val_fraction,
        split_seed=split_seed,
    )


def fashion_mnist(*, name: str, root: str | None, val_fraction: float, split_seed: int) -> Dataset:
    """Return articles of clothing, 28×28, grey, 10 classes, 60,000 to train and 10,000 to test (Xiao et al., 2017).

    Source: arXiv:1708.07747. Files are in `root`/FashionMNIST/raw, plain or as .gz; missing ones are downloaded.
    Raise ValueError if a file is damaged, or, with the files to put there by hand, if a download is not possible.
    """
    train, test = _parts(to_download_into(root) / "FashionMNIST" / "raw", FASHION_FILES, FASHION_URLS, name)
    return assemble(
        name,
        FASHION_CLASSES,
        {"train": train, "test": test},
        mean=(0.2860,),
        std=(0.3530,),
        val_fraction=val_fraction,
        split_seed=split_seed,
    )


def read_idx(path: Path) -> Tensor:
    """Return the uint8 tensor in an IDX file, plain or .gz. Raise ValueError, with its name, if it is damaged."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
    except (OSError, EOFError, gzip.zlib.error, struct.error) as error:  # type: ignore[attr-defined]
        raise ValueError(
            f"{path}: not an IDX file, or a damaged one ({error}); delete it to download it again"
        ) from error
    start = 4 + 4 * dimensions
    if (zeros, kind) != (0, 8) or len(content) - start != int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{path}: not an IDX file of bytes, or a truncated one; delete it to download it again")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy())


def _parts(folder: Path, files: Sequence[File], urls: Sequence[str], name: str) -> tuple[ImageSet, ImageSet]:
    def existing(file: File) -> Path | None:
        return next((p for p in (folder / file.name[:-3], folder / file.name) if p.is_file()), None)

    fetch([file for file in files if existing(file) is None], urls, folder, name)
    images, labels, test_images, test_labels = (read_idx(existing(file) or folder / file.name) for file in files)
    for these, those in ((images, labels), (test_images, test_labels)):
        if these.ndim != 3 or those.shape != these.shape[:1] or not len(those) or int(those.max()) > 9:
            raise ValueError(f"{folder}: images {tuple(these.shape)} and labels {tuple(those.shape)} do not match")
    return ImageSet(images[:, None], labels.long()), ImageSet(test_images[:, None], test_labels.long())
