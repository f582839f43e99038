"""The first forward passes of a network, before it is used: what it makes, changes and returns in both modes.

Layers that the first forward pass creates stay; everything else is restored.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdrun import memory, own
from kdrun.models.base import Classifier, Outputs, Unfit, parameters_device

SPREAD = 3.0  # standard deviation of the pixels: beyond the usual range, so that clipping in place shows
MODES = {False: "eval mode", True: "training mode"}


def try_out(network: Classifier, num_classes: int, in_channels: int, image_size: tuple[int, int]) -> None:
    """Run a network on one image in eval mode and on two in training mode, and set its `remarks` accordingly.

    They say what a user should know. A network that changes its input gets copies of images from then on. The passes
    draw from the present generators. Raise ValueError if a network fails, does not return logits (N, num_classes),
    returns probabilities, or has weights that could not be trained.
    """
    called = network.called
    images = pixels(2, in_channels, image_size, parameters_device(network))
    seen = f"{in_channels}-channel images of {'×'.join(map(str, image_size))}"
    remarks: dict[bool, tuple[str, ...]] = {}
    weights: dict[str, nn.Parameter] = {}
    writes = False
    for training, count in ((False, 1), (True, 2)):
        try:
            with torch.no_grad(), as_it_was(network):
                network.train(training)
                given = images[:count].clone()
                outputs = network(given)
                writes = writes or given.requires_grad or not same(given, images[:count])
                remarks[training] = network.look(images.clone())
        except Unfit as error:
            raise ValueError(f"{called} {error}") from None
        except (Exception, SystemExit) as error:
            if memory.ran_out(error):
                raise
            where = f" in {MODES[True]}" if training else ""
            raise ValueError(f"{called} cannot take {seen}{where}: {own.words(error)}{network.advice}") from error
        _check(called, outputs, (count, num_classes), training)
        now = dict(network.named_parameters())
        if renewed := [name for name, parameter in weights.items() if now.get(name, parameter) is not parameter]:
            raise ValueError(
                f"{called} creates new weights in every forward pass ({', '.join(renewed[:3])}), so they could not be "
                "trained: create them once"
            )
        weights = now
    tensors = chain(network.named_parameters(), network.named_buffers())
    if unmade := [name for name, tensor in tensors if is_lazy(tensor)]:
        raise ValueError(
            f"{called}: these lazy layers get no shape, because the forward pass does not use them: "
            f"{', '.join(unmade[:3])}"
        )
    common = [sentence for sentence in remarks[False] if sentence in remarks[True]]
    apart = [
        f"in {MODES[training]} {sentence}"
        for training in remarks
        for sentence in remarks[training]
        if sentence not in common
    ]
    copied = ["changes its input images in place: it gets a copy of each batch"] if writes else []
    network.copies_input = writes
    network.remarks = (*copied, *common, *apart)


def pixels(count: int, channels: int, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Return normalised images of noise, the same at every call, without a draw from the global generators."""
    drawn = torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(0))
    return (SPREAD * drawn).to(device)


@contextmanager
def drawing(seed: int | None) -> Iterator[None]:
    """Seed torch's, NumPy's and Python's generators of the CPU within the block, and restore them at its end."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                # The default generator alone: torch.manual_seed would reseed the GPUs too.
                torch.default_generator.manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def as_it_was(network: nn.Module) -> Iterator[None]:
    """Restore a network's modes, weights, statistics and counters after forward passes.

    Layers that a pass creates stay. If there are any, attributes that the network's own code set stay too, since they
    may record that these layers exist.
    """
    parts = list(network.modules())
    plain = [
        {
            key: value
            for key, value in vars(part).items()
            if key == "training" or (part is not network and isinstance(value, bool | int | float | str | NoneType))
        }  # for the network itself, a class of kdrun, only the mode: `look` may set its attributes
        for part in parts
    ]
    kept: list[tuple[nn.Module, dict[str, Any], str, Tensor, Tensor]] = [
        (part, table, name, tensor, tensor.detach().clone())
        for part in parts
        for table in (part._parameters, part._buffers)
        for name, tensor in table.items()
        if tensor is not None and not is_lazy(tensor)
    ]
    before = _names(network)
    try:
        yield
    finally:
        made = _names(network) != before
        for part, values in zip(parts, plain, strict=True):
            vars(part).update({"training": values["training"]} if made else values)
        with torch.no_grad():
            for part, table, name, tensor, value in kept:
                now = table.get(name)
                if now is None or now.shape != value.shape or (now is not tensor and isinstance(now, nn.Parameter)):
                    continue  # created or replaced by a pass
                if not made or type(part).__module__.startswith("torch.nn"):
                    tensor.copy_(value)
                    table[name] = tensor


def _names(network: nn.Module) -> list[tuple[str, bool]]:
    """Return the names of all weights and buffers, each with whether it has no shape yet."""
    return [(name, is_lazy(t)) for name, t in chain(network.named_parameters(), network.named_buffers())]


def same(one: Tensor, other: Tensor | None) -> bool:
    """Return whether two tensors have the same shape, type and bytes; 0 and −0 differ."""
    if other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.is_meta:  # which has no bytes
        return True
    left, right = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(left, right)


def _check(called: str, outputs: Outputs, shape: tuple[int, int], training: bool) -> None:
    mode = f" in {MODES[True]}" if training else ""
    if outputs.logits.shape != shape:
        images = "one image" if shape[0] == 1 else "two images"
        raise ValueError(
            f"{called} returns logits of shape {tuple(outputs.logits.shape)} for {images}{mode}; "
            f"the data has {shape[1]} classes, so {shape} is needed"
        )
    z = outputs.logits.float()
    if shape[1] > 1 and not z.is_meta and bool((z >= 0).all()) and bool(((z.sum(1) - 1).abs() < 1e-4).all()):
        raise ValueError(
            f"{called} returns probabilities in {MODES[training]} (each row sums to 1) instead of logits: remove "
            "its last softmax"
        )
    for stage, map in outputs.features.items():
        if map.ndim != 4:
            raise ValueError(
                f"features: {stage} of {called} has shape {tuple(map.shape)}; maps (N, c, h, w) are needed"
            )
