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
    name = words("models", rest, "name").name
    paths = files("model")
    if name is not None:
        if name not in paths:
            raise ValueError(f"{name}: there is no such model.{nearest(name, paths)} Available: {', '.join(paths)}")
        return _one(name, paths)
    import torch

    torch.set_num_threads(1)  # with one image more threads only slow it down
    bar = tqdm(paths.items(), desc="measuring", unit="net", leave=False, disable=None)
    rows = [[name, *_parameters(node(path, "model")), description(path)] for name, path in bar]
    headings = ["name", "CIFAR-100", "MNIST", "digits", "description"]
    notes = [
        "parameters for 100 classes of 3×32×32, 10 of 1×28×28 and 10 of 1×8×8 images;"
        " –: it does not fit, or is slow to count (kdrun models NAME counts it)",
        "kdrun models NAME shows settings and stages; a file conf/model/NAME.yaml adds your own",
    ]
    print(Table(headings, rows, notes=notes).to_text())
    return 0


def _build(settings: dict[str, Any], classes: int, channels: int, size: int) -> Any:
    from kdrun import models

    use, arguments = models.spelled_out(settings["use"], {k: v for k, v in settings.items() if k != "use"})
    with models.Unfilled():
        return models.build(
            use,
            num_classes=classes,
            in_channels=channels,
            image_size=(size, size),
            mean=[0.5] * channels,
            std=[0.5] * channels,
            **{k: v for k, v in arguments.items() if k != "weights"},
        )


def _parameters(settings: dict[str, Any]) -> list[str]:
    """Return the parameter count for every shape; without an `image_size` argument it is independent of the size."""
    from kdrun import models

    try:
        constructor = models.resolve(models.spelled_out(settings["use"], {})[0])
    except ValueError:
        return ["–"] * len(SHAPES)
    if constructor.slow_to_import:
        return ["–"] * len(SHAPES)
    sized = "image_size" in inspect.signature(constructor).parameters
    counted: dict[tuple[int, int], str] = {}
    row: list[str] = []
    for classes, channels, size in reversed(SHAPES):
        if sized or (classes, channels) not in counted:
            try:
                module = _build(settings, classes, channels, size)
            except ValueError:
                row.insert(0, "–")
                continue
            counted[classes, channels] = count(sum(p.numel() for p in module.parameters()))
        row.insert(0, counted[classes, channels])
    return row


def _one(name: str, paths: dict[str, Any]) -> int:
    from kdrun import models

    settings = node(paths[name], "model")
    print(f"{name}: {description(paths[name])}\n")
    print(f"settings (student.KEY=VALUE, teacher.KEY=VALUE), from {paths[name]}:")
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
