"""Sets and files that several tests of data use."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kdrun.augment import Pipeline
from kdrun.augment.crop_flip import CropFlip
from kdrun.data.batches import Batches
from kdrun.data.sets import Dataset, ImageSet

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
SPLIT = {"val_fraction": 0.0, "split_seed": 0}


def image_set(count: int = 200, channels: int = 3, size: tuple[int, int] = (32, 32), classes: int = 10) -> ImageSet:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.arange(count) % classes)


def batches_of(images: Any, **changed: Any) -> Batches:
    channels = images.in_channels
    arguments = {"batch_size": 64, "seed": 0, "augmentation": shifted(4, True), "device": "cpu"}
    return Batches(images, **{**arguments, "mean": MEAN[:channels], "std": STD[:channels], **changed})


def shifted(padding: int = 0, flip: bool = False) -> Pipeline:
    """The usual augmentation."""
    return Pipeline([CropFlip(padding, flip)] if padding or flip else [])


def picture(number: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Image.Image:
    """A random picture, width × height."""
    random = np.random.default_rng(number)
    pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def tree(
    root: Path,
    count: int = 3,
    classes: tuple[str, ...] = ("cat", "dog"),
    parts: tuple[str, ...] = ("train", "test"),
) -> Path:
    """A folder of random PNG files, `count` for each class of each part."""
    for p, part in enumerate(parts):
        for c, name in enumerate(classes):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                picture(10_000 * p + 100 * c + i).save(root / part / name / f"{i}.png")
    return root


def zipped(root: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(root.rglob("*")):
            out.write(path, path.relative_to(root).as_posix())
    return archive


def folder_arguments(root: Any, **changed: Any) -> dict[str, Any]:
    arguments = {"name": "mine", "root": root, "size": None, "channels": None, "on_bad_image": "stop"}
    return {**arguments, "max_resident_gb": 8.0, **SPLIT, **changed}


def load_folder(root: Any, **changed: Any) -> Dataset:
    from kdrun.data.folder import folder

    return folder(**folder_arguments(root, **changed))


def real_data(*needed: str) -> Path:
    """The folder with real sets; a test that needs it is skipped where KDRUN_DATA does not have them."""
    root = Path(os.environ.get("KDRUN_DATA") or "/nonexistent")
    if missing := [name for name in needed if not (root / name).exists()]:
        pytest.skip(f"needs {', '.join(missing)} in the folder that KDRUN_DATA names")
    return root
