"""The choice of held-out and test images: pure functions of labels and a seed."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from kdrun.randomness import DRAWN_TEST, HELD_OUT, key, permutation

log = logging.getLogger(__name__)


def hold_out(labels: Tensor, fraction: float, split_seed: int) -> tuple[Tensor, Tensor]:
    """Return indices to train on and indices held out for validation, stratified, each in rising order.

    The held-out set depends on `labels` (N,), `fraction` and `split_seed` alone, never on a training seed, so
    that no network of a comparison, the teacher included, has seen it. Fraction 0 holds nothing out. Every
    class keeps an image to train on. Raise ValueError if the fraction is outside [0, 1), or too small to hold out
    a single image.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"val_fraction={fraction:g}: must lie in [0, 1); 0 holds nothing out")
    count = round(fraction * len(labels))
    if fraction and not count:
        raise ValueError(
            f"val_fraction={fraction:g} of {len(labels)} images holds out none; "
            f"type dataset.val_fraction=0, or at least {1 / len(labels):.2g}"
        )
    held = stratified(labels, count, key(HELD_OUT, split_seed), keep=1)
    taken = torch.zeros(len(labels), dtype=torch.bool)
    taken[held] = True
    return torch.nonzero(~taken).flatten(), held


def draw_test(labels: Tensor, classes: Sequence[str], fraction: float, split_seed: int) -> tuple[Tensor, Tensor]:
    """Return indices for training and validation, and indices of test images, stratified, each in rising order.

    For data without a test part. The draw depends on `labels` (N,), `fraction` and `split_seed` alone. Every class is
    in both. Raise ValueError if the fraction is outside (0, 1), or if a class has a single image.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"dataset.test_fraction={fraction:g}: must lie in (0, 1), or be null if there is a test/")
    drawn = stratified(labels, round(fraction * len(labels)), key(DRAWN_TEST, split_seed), keep=1, least=1)
    if lacking := sorted(set(labels.tolist()) - set(labels[drawn].tolist())):
        raise ValueError(
            f"dataset.test_fraction={fraction:g}: {classes[lacking[0]]} has a single image, too few to train "
            "and to test on; add some, or remove the class"
        )
    log.info(
        "dataset.test_fraction=%g: %d of %d images are drawn for testing (dataset.split_seed=%d)",
        fraction,
        len(drawn),
        len(labels),
        split_seed,
    )
    taken = torch.zeros(len(labels), dtype=torch.bool)
    taken[drawn] = True
    return torch.nonzero(~taken).flatten(), drawn


def stratified(labels: Tensor, count: int, key: int, keep: int = 0, least: int = 0) -> Tensor:
    """Return indices of `count` images, drawn from each class in proportion to its size, in rising order.

    Shares are rounded by largest remainder, so no class is off by a whole image. With the same key a smaller
    draw is part of a larger one, except for that rounding. At least `keep` images of each class are not drawn, which
    can make the draw smaller than `count`. At least `least` are drawn, as far as `keep` allows, which can make it
    larger.
    """
    _, inverse, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    quota = sizes * count // len(labels)
    remainder = sizes * count % len(labels)
    most = remainder.argsort(descending=True, stable=True)[: count - int(quota.sum())]
    quota[most] += 1
    quota = torch.minimum(quota.clamp(min=least), (sizes - keep).clamp(min=0))
    order = permutation(key, len(labels))
    order = order[inverse[order].argsort(stable=True)]  # class by class, at random within
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[inverse[order]]
    return order[rank < quota[inverse[order]]].sort().values
