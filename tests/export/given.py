"""What the tests of exports are given: networks of conf/model on raw pixels, with their sheets, untrained."""

import json

import numpy as np
import torch
import yaml

from kdrun import config, models
from kdrun.export.network import Trained
from kdrun.export.sheet import Sheet
from kdrun.spec import Spec

CLASSES = ("cat", "dog", "größe")
MEAN, STD = (0.4, 0.5, 0.45), (0.25, 0.2, 0.3)


def network(name, size=(8, 8), channels=1, classes=CLASSES, **changes):
    """A network of conf/model on raw pixels, and a function that gives its sheet for a format."""
    arguments = yaml.safe_load((config.CONF / "model" / f"{name}.yaml").read_text()) | changes
    use = arguments.pop("use")
    arguments.pop("weights", None)
    mean, std = list(MEAN[:channels]), list(STD[:channels])
    described = {"use": use, "arguments": arguments, "num_classes": len(classes), "in_channels": channels,
                 "image_size": list(size), "digest": None}  # fmt: skip
    spec = Spec({"mean": mean, "std": std}, described, {}, {}, 0, "fp32")
    made = models.build(use, num_classes=len(classes), in_channels=channels, image_size=size, mean=mean, std=std,
                        seed=0, **arguments)  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    for part in made.modules():  # statistics that mean something, as after a training
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)

    def sheet(format):
        return Sheet(
            format, name, "pets", "student", 0, tuple(classes), size, channels, tuple(mean), tuple(std),
            json.loads(spec.json()), spec.fingerprint, {"kdrun": "0"}, "2026-01-02T03:04:05+00:00",
        )  # fmt: skip

    return Trained(made, spec, classes).eval(), sheet


def pixels(count, size=(8, 8), channels=1):
    """Random images, uint8 (N, C, H, W)."""
    return np.random.default_rng(0).integers(0, 256, (count, channels, *size), dtype=np.uint8)
