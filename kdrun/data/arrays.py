"""A data set of the user's own: a function that returns arrays and class names."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdrun import config, memory, own
from kdrun.data import repeated
from kdrun.data.sets import Dataset, ImageSet, assemble, statistics
from kdrun.data.splits import draw_test

LAYOUT = '{"train": (images, labels), "test": (images, labels), "classes": [names]}, and perhaps "val"'


def arrays(
    function: Callable[..., Any],
    use: str,
    *,
    name: str,
    val_fraction: float,
    split_seed: int,
    test_fraction: float | None = None,
    **arguments: Any,
) -> Dataset:
    """Return the images that a function, named `use`, returns for `arguments`.

    Without a "test", `test_fraction` draws one by `split_seed`. Raise ValueError, with what is needed instead, if the
    function cannot be called with these arguments, fails, or returns something else.
    """
    where = f"dataset={name}: {use}"
    if (config.CONF / "dataset" / f"{name}.yaml").is_file():
        raise ValueError(f"{where}: {name} is the name of one of kdrun's own data sets; name your file otherwise")
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"{where}: {error}; it takes {inspect.signature(function)}") from None
    try:
        returned = function(**arguments)
    except (Exception, SystemExit) as error:
        if memory.ran_out(error):
            raise
        raise ValueError(f"{where} fails: {own.words(error)}") from error
    classes = _classes(returned, where)
    parts = {part: _part(*_pair(returned[part], part, where), f"{where}: {part}", classes) for part in _parts(returned)}
    if "test" not in parts and test_fraction is None:
        raise ValueError(f"{where} returned no test images; return some, or set dataset.test_fraction=0.2")
    if "test" in parts and test_fraction is not None:
        raise ValueError(
            f"dataset.test_fraction={test_fraction:g}: {where} returns test images of its own; set it to null"
        )
    if test_fraction is not None:
        train, test = draw_test(parts["train"].labels, classes, test_fraction, split_seed)
        parts |= {"train": parts["train"].subset(train), "test": parts["train"].subset(test)}
    shapes = {part: tuple(images.images.shape[1:]) for part, images in parts.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{part} {'×'.join(map(str, shape))}" for part, shape in shapes.items())
        raise ValueError(f"{where} returned images of different shapes: {listed} (channels×height×width)")
    repeated.warn({part: _marked(part, images) for part, images in parts.items()})
    mean, std = statistics(parts["train"].images)
    return assemble(
        name,
        classes,
        parts,
        mean=mean,
        std=std,
        val_fraction=val_fraction,
        split_seed=split_seed,
    )


def _classes(returned: Any, where: str) -> list[str]:
    """Return the class names. Raise ValueError if the whole is not as described in LAYOUT."""
    if not isinstance(returned, Mapping):
        raise ValueError(f"{where} returned {type(returned).__name__}; it must return a dictionary: {LAYOUT}")
    known = ("train", "val", "test", "classes")
    if unknown := [str(key) for key in returned if key not in known]:
        raise ValueError(f"{where} returned the key {unknown[0]}; it must return {LAYOUT}")
    if missing := [key for key in ("train", "classes") if key not in returned]:
        raise ValueError(f"{where} returned no {' and no '.join(missing)}; it must return {LAYOUT}")
    names = returned["classes"]
    if isinstance(names, str) or not isinstance(names, Sequence | np.ndarray):
        raise ValueError(f"{where}: classes is {type(names).__name__}; it must be a list of names, by label")
    classes = [str(one) for one in names]
    if twice := sorted({one for one in classes if classes.count(one) > 1}):
        raise ValueError(f"{where}: two classes are called {twice[0]}; each needs a name of its own")
    if odd := [one for one in classes if not one.strip() or not one.isprintable()]:
        raise ValueError(f"{where}: {odd[0]!r} is no name of a class; it is empty or cannot be printed")
    return classes


def _parts(returned: Mapping[str, Any]) -> list[str]:
    return ["train", *(part for part in ("val", "test") if returned.get(part) is not None)]


def _pair(given: Any, part: str, where: str) -> tuple[Any, Any]:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(f"{where}: {part} must be a pair (images, labels), not {type(given).__name__}")
    return given[0], given[1]


def _part(images: Any, labels: Any, what: str, classes: Sequence[str]) -> ImageSet:
    """Return a part as kdrun holds it. Raise ValueError, with what is needed instead."""
    pixels, y = _array(images, f"{what} images"), _array(labels, f"{what} labels")
    if pixels.dtype != np.uint8:
        between = f" from {pixels.min():g} to {pixels.max():g}" if pixels.size and pixels.dtype.kind in "fiu" else ""
        scaled = "(255 * images).round().astype('uint8')" if pixels.dtype.kind == "f" else "images.astype('uint8')"
        raise ValueError(
            f"{what} images are {pixels.dtype}{between}; kdrun takes uint8 from 0 to 255, such as {scaled}"
        )
    if not pixels.size:
        raise ValueError(f"{what} has no images")
    if y.dtype.kind not in "iu" or y.ndim != 1:
        hint = "; take labels.argmax(1)" if y.ndim == 2 and y.shape[1] == len(classes) else ""
        raise ValueError(
            f"{what} labels are {y.dtype} of shape {y.shape}; kdrun takes whole numbers of shape (N,){hint}"
        )
    if len(y) != len(pixels):
        raise ValueError(f"{what} has {len(pixels)} images and {len(y)} labels")
    if y.min() < 0 or y.max() >= len(classes):
        wrong = int(y.min() if y.min() < 0 else y.max())
        raise ValueError(
            f"{what} has the label {wrong}; {len(classes)} classes have the labels 0 to {len(classes) - 1}"
        )
    return ImageSet(_channels_first(pixels, what), torch.from_numpy(y.astype(np.int64)))


def _array(values: Any, what: str) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except Exception as error:
        raise ValueError(f"{what} are no array: {own.words(error)}") from None


def _channels_first(pixels: np.ndarray[Any, np.dtype[Any]], what: str) -> Tensor:
    """Return images (N, C, H, W) from images (N, H, W), (N, C, H, W) or (N, H, W, C), with 1 or 3 channels."""
    images = torch.from_numpy(np.ascontiguousarray(pixels))
    first, last = (pixels.ndim == 4 and pixels.shape[axis] in (1, 3) for axis in (1, 3))
    if pixels.ndim == 3:
        return images[:, None]
    if first and last:
        raise ValueError(
            f"{what} images are {pixels.shape}: cannot tell if channels come first or last; use images with sides "
            "other than 1 and 3"
        )
    if not first and not last:
        raise ValueError(
            f"{what} images are {pixels.shape}; kdrun takes (N, H, W), (N, C, H, W) or (N, H, W, C), C 1 or 3"
        )
    return images if first else images.permute(0, 3, 1, 2)


def _marked(part: str, images: ImageSet) -> list[repeated.Marked]:
    labels = images.labels.tolist()
    return [repeated.Marked(mark, f"{part}[{i}]", labels[i]) for i, mark in enumerate(repeated.marks(images.images))]
