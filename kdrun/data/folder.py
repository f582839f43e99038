"""Your own images: folders or .zip archives with train/CLASS/* and test/CLASS/* inside."""

from collections.abc import Sequence
from typing import Any

from kdrun.data import files, layout, listing
from kdrun.data.sets import Dataset

__all__ = ["folder"]


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
    test_fraction: float | None = None,  # older runs do not have it
) -> Dataset:
    """Return the images below train/CLASS, test/CLASS and perhaps val/CLASS of `root`.

    `root` is a folder, a .zip archive, or a list of them that are taken together. Class names are those of
    the folders, in alphabetical order. If there is no test/, `test_fraction` draws test images, and `root` may be just
    a folder per class. The other settings are those of `files.from_files`.
    Raise ValueError, before training starts, if anything is wrong with the files or the settings.
    """
    files.refuse_settings(channels=channels, on_bad_image=on_bad_image, max_resident_gb=max_resident_gb)
    if root is None:
        raise ValueError(f"dataset.root: which images? Type dataset.root=DIR or FILE.zip, with {layout.LAYOUT} inside")
    images = layout.classified(listing.roots(root, "dataset.root"), test_fraction=test_fraction)
    return files.from_files(
        images,
        name=name,
        size=size,
        channels=channels,
        on_bad_image=on_bad_image,
        max_resident_gb=max_resident_gb,
        val_fraction=val_fraction,
        split_seed=split_seed,
        test_fraction=test_fraction,
    )
