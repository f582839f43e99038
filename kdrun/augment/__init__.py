"""Augmentation: one random change of images per file, beside one `conf/augment/NAME.yaml` that lists its arguments.

Everything random about an image is a function of (seed, epoch, index) alone, or with K views of (seed of the views,
index, view): never of the batch, the process or the device. A YAML's `use: module.Class` names a class here.
"""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from kdrun.augment.base import Augmentation, Mixing
from kdrun.augment.pipeline import Pipeline
from kdrun.checks import modules, nearest
from kdrun.randomness import AUGMENTATION, STRONG

__all__ = ["Pipeline", "build", "described", "mixes", "of_spec", "strong_of_spec"]

SHARED = ("base", "operations", "pipeline", "rectangles")
OWN = ("views", "seed")  # keys of `augment` besides those of each augmentation
CROP = "crop_flip"  # a spec has separate keys for its settings, which are older than `augment`


def build(
    node: Mapping[str, Any],
    *,
    mean: Sequence[float],
    size: tuple[int, int],
    labelled_only: bool = True,
    purpose: int = AUGMENTATION,
    where: str = "augment",
) -> Pipeline:
    """Return the augmentations of a configuration node: {views, seed, name: {use, and its arguments}}.

    `mean` is that of the data, per channel, and `size` that of an image (H, W); with `labelled_only` an image without a
    label is not mixed. Raise ValueError, with the augmentation's name, if something does not exist, is missing or is
    out of range.
    """
    stages: list[Augmentation] = []
    mixings: list[Mixing] = []
    for name, settings in node.items():
        if name in OWN:
            continue
        arguments = {key: value for key, value in settings.items() if key != "use"}
        try:
            cls = _find(settings.get("use"))
            signature = inspect.signature(cls)
            signature.bind(**arguments)
            made = cls(**arguments)
            if isinstance(made, Augmentation):
                made.fit(size)
        except ValueError as error:
            raise ValueError(f"{where}.{name}: {error}") from None
        except TypeError as error:  # from bind: an argument is missing or unknown
            raise ValueError(f"{where}.{name}: {error}; {settings['use']} takes {signature}") from None
        if isinstance(made, Mixing):
            mixings.append(made)
        else:
            made.mean = tuple(mean)
            stages.append(made)
    views, seed = node.get("views"), node.get("seed", 0)
    return Pipeline(stages, mixings, views=views, views_seed=seed, labelled_only=labelled_only, purpose=purpose)


def mixes(node: Mapping[str, Any]) -> bool:
    """Return whether a configuration node's augmentations mix images."""
    return any(issubclass(_find(settings["use"]), Mixing) for name, settings in node.items() if name not in OWN)


def described(node: Mapping[str, Any], *, partners: str | None = None) -> dict[str, Any]:
    """Return a spec's entries about augmentation: crop and flip under their older keys, the rest if there is any.

    `partners` is "all" if images without labels are mixed too.
    """
    crop = node.get(CROP, {})
    rest: dict[str, Any] = {name: dict(value) for name, value in node.items() if name not in (*OWN, CROP)}
    if node.get("views") is not None:
        rest |= {"views": node["views"], "seed": node.get("seed", 0)}
    if partners is not None:
        rest["partners"] = partners
    known = {"crop_padding": crop.get("padding", 0), "flip": crop.get("flip", False)}
    return known | ({"augment": rest} if rest else {})


def of_spec(data: Mapping[str, Any], size: tuple[int, int]) -> Pipeline:
    """Return the augmentation that a spec's `data` describe, for images of `size` (H, W)."""
    rest = _all(data)
    labelled_only = rest.pop("partners", None) != "all"
    return build(rest, mean=data["mean"], size=size, labelled_only=labelled_only)


def strong_of_spec(data: Mapping[str, Any], strong: Mapping[str, Any] | None, size: tuple[int, int]) -> Pipeline | None:
    """Return the augmentation of a second, strong view: that of a spec's `data`, with separate draws, plus `strong`.

    `strong` is {name: {use, and its arguments}}, or None if there is no such view; its settings replace those of the
    same name in `data`. Every epoch draws a new view.
    Raise ValueError, with the augmentation's name, if something does not exist, is out of range or mixes images.
    """
    if strong is None:
        return None
    weak = {name: value for name, value in _all(data).items() if name not in (*OWN, "partners")}
    if mixes(both := {**weak, **strong}):
        raise ValueError("strong: a strong view is of one image; choose other augmentations than mixup and cutmix")
    return build(both, mean=data["mean"], size=size, purpose=STRONG, where="strong")


def _all(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return all entries about augmentation in a spec's `data`, crop and flip under their present name."""
    rest = dict(data.get("augment", {}))
    if data["crop_padding"] or data["flip"]:
        rest[CROP] = {"use": "crop_flip.CropFlip", "padding": data["crop_padding"], "flip": data["flip"]}
    return rest


def _find(use: Any) -> type[Any]:
    """Return the class that `use` names, e.g. `mixup.Mixup`.

    Raise ValueError, with the names that exist, if there is no such class.
    """
    file, _, name = str(use).partition(".")
    files = [name for name in modules(*__path__) if name not in SHARED]
    if file not in files:
        raise ValueError(f"use={use}: kdrun.augment has {', '.join(files)}.{nearest(file, files)}")
    module = importlib.import_module(f"{__name__}.{file}")
    if name not in module.__all__:
        raise ValueError(f"use={use}: kdrun.augment.{file} has {', '.join(module.__all__)}")
    cls: type[Any] = getattr(module, name)
    return cls
