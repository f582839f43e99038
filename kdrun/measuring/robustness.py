"""Accuracy of networks on corrupted and on attacked test images, the same images for all networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from kdrun.config import Robustness
from kdrun.data.batches import slices
from kdrun.data.sets import FileSet, ImageSet, Stored
from kdrun.data.splits import stratified
from kdrun.evaluation.hits import hits
from kdrun.measuring.attacks import Classify, ascent, pgd, step
from kdrun.measuring.conditions import ATTACKS, CLEAN, levels
from kdrun.measuring.corruptions import corrupt
from kdrun.randomness import TEST, key

Tick = Callable[[int], object]


def chosen(labels: Tensor, family: str, how: Robustness) -> Tensor:
    """Return the ascending indices of a family's test images: all labelled ones, or a stratified subset of these.

    A smaller subset is contained in a larger one, up to rounding.
    """
    count = how.attack_images if family in ATTACKS else how.images
    labels = labels.cpu()
    known = torch.nonzero(labels >= 0).flatten()
    if count is None or count >= len(known):
        return known
    return known[stratified(labels[known], count, key(TEST, how.seed))]


def measure(
    family: str,
    how: Robustness,
    networks: Mapping[str, Classify],
    images: ImageSet | FileSet,
    *,
    device: torch.device,
    batch_size: int,
    tick: Tick = lambda images: None,
) -> dict[str, dict[str, float]]:
    """Return each network's accuracy in [0, 1] at each strength of a family.

    A batch is corrupted once for all networks, and attacked for each network. `tick` is called with the number of
    images after every pass (`conditions.passes`), and may raise to give up.
    """
    places = chosen(images.labels, family, how)
    right = {name: dict.fromkeys(levels(family, how), 0) for name in networks}
    plan = [places[part] for part in slices(len(places), batch_size)]
    changed = _attacked if family in ATTACKS else _corrupted
    for indices, stored in zip(plan, images.stored(plan, device), strict=True):
        for name, level, pixels in changed(family, how, networks, stored, indices.to(device), tick):
            right[name][level] += _right(networks[name], pixels, stored.labels)
            tick(len(indices))
    return {name: {level: n / len(places) for level, n in own.items()} for name, own in right.items()}


Changed = Iterator[tuple[str, str, Tensor]]  # network, strength, pixels


def _corrupted(
    family: str, how: Robustness, networks: Mapping[str, Classify], batch: Stored, indices: Tensor, tick: Tick
) -> Changed:
    for level in levels(family, how):
        shown = batch.images
        if family != CLEAN:
            shown = corrupt(shown, family, int(level), seed=how.seed, indices=indices)
        pixels = shown.float() / 255
        yield from ((name, level, pixels) for name in networks)


def _attacked(
    family: str, how: Robustness, networks: Mapping[str, Classify], batch: Stored, indices: Tensor, tick: Tick
) -> Changed:
    pixels = batch.images.float() / 255
    stepped = partial(tick, 3 * len(batch.labels))
    strengths = levels(family, how)[1:]
    for name, classify in networks.items():
        yield name, "0", pixels
        if family == "fgsm":
            sign = ascent(classify, pixels, batch.labels)  # the same for every strength
            stepped()
            yield from ((name, level, step(pixels, sign, float(level))) for level in strengths)
            continue
        for level in strengths:
            attacked = pgd(
                classify,
                pixels,
                batch.labels,
                float(level),
                steps=how.pgd_steps,
                size=how.pgd_step,
                seed=how.seed,
                indices=indices,
                check=stepped,
            )
            yield name, level, attacked


@torch.no_grad()
def _right(classify: Classify, pixels: Tensor, labels: Tensor) -> int:
    return int(hits(classify(pixels), labels).sum())
