"""kdrun models: the networks that teacher=NAME and student=NAME choose."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from kdrun.checks import nearest
from kdrun.command.listings import description, files, node, words
from kdrun.console import count
from kdrun.results.tables import Table

SHAPES = ((100, 3, 32), (10, 1, 28), (10, 1, 8))  # classes, channels and size of the usual images, largest first


def main(rest: Sequence[str]) -> int:
    """Print the list, or one network's settings and stages."""
    asked = words("models", rest, "name").name
    found = files("model")
    if asked is not None:
        if asked not in found:
            raise ValueError(f"{asked}: there is no such model.{nearest(asked, found)} Existing: {', '.join(found)}")
        return _one(asked, found)
    import torch

    torch.set_num_threads(1)  # over one image threads do nothing but wait for each other
    rows = []
    for name, path in tqdm(found.items(), desc="measuring", unit="net", leave=False, disable=None):
        rows.append([name, *_parameters(node(path, "model")), description(path)])
    headings = ["name", "CIFAR-100", "MNIST", "digits", "what it is"]
    notes = [
        "parameters for 100 classes of 3×32×32, 10 of 1×28×28 and 10 of 1×8×8 images;"
        " – where it does not fit, or takes long to count: kdrun models NAME counts it",
        "kdrun models NAME shows settings and stages; a file conf/model/NAME.yaml of your own adds one",
    ]
    print(Table(headings, rows, notes=notes).to_text())
    return 0


def _build(settings: dict[str, Any], classes: int, channels: int, size: int) -> Any:
    from kdrun import models

    arguments = {k: v for k, v in settings.items() if k not in ("use", "weights")}
    with models.Unfilled():
        return models.build(
            settings["use"],
            num_classes=classes,
            in_channels=channels,
            image_size=(size, size),
            mean=[0.5] * channels,
            std=[0.5] * channels,
            **arguments,
        )


def _parameters(settings: dict[str, Any]) -> list[str]:
    """Count for every shape; what fits small images, and is not told their size, is the same for larger ones."""
    from kdrun import models

    try:
        constructor = models.resolve(settings["use"])
    except ValueError:
        return ["–"] * len(SHAPES)
    if constructor.slow_to_import:
        return ["–"] * len(SHAPES)
    told = "image_size" in inspect.signature(constructor).parameters
    counted: dict[tuple[int, int], str] = {}
    found: list[str] = []
    for classes, channels, size in reversed(SHAPES):
        if told or (classes, channels) not in counted:
            try:
                module = _build(settings, classes, channels, size)
            except ValueError:
                found.insert(0, "–")
                continue
            counted[classes, channels] = count(sum(p.numel() for p in module.parameters()))
        found.insert(0, counted[classes, channels])
    return found


def _one(name: str, found: dict[str, Any]) -> int:
    from kdrun import models

    settings = node(found[name], "model")
    print(f"{name}: {description(found[name])}\n")
    print(f"settings (student.KEY=VALUE, teacher.KEY=VALUE), from {found[name]}:")
    print("\n".join(f"  {key}: {value}" for key, value in settings.items()))
    for classes, channels, size in SHAPES:
        try:
            module = _build(settings, classes, channels, size)
        except ValueError as error:
            print(f"\n{channels}×{size}×{size}: {error}")
            continue
        seen = models.describe(module, channels, (size, size))
        rows = [[stage, "×".join(map(str, shape))] for stage, shape in seen.stages.items()]
        rows.append(["embedding", str(seen.embedding)])
        print(f"\n{classes} classes of {channels}×{size}×{size}: {seen.parameters:,} parameters")
        print(Table(["stage", "output"], rows).to_text())
    return 0
