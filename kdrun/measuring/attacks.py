"""White-box attacks: small changes of the pixels that raise a network's loss, computed from its own gradient.

Pixels are floats in [0, 1], and an attack of strength ε changes none of them by more than ε/255: ε is in the units of
stored pixels. A network is a function `classify` from pixels (N, C, H, W) to logits (N, classes), with its
normalisation and in eval mode; its weights do not change and get no gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from kdrun.measuring.corruptions import Draws
from kdrun.randomness import ATTACK

Classify = Callable[[Tensor], Tensor]


def fgsm(classify: Classify, pixels: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Take one step of ε along the sign of the gradient: x + ε·sign(∇x L(x, y)), cut to [0, 1].

    The fast gradient sign method: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples"
    (ICLR 2015), section 4.
    """
    return step(pixels, ascent(classify, pixels, labels), epsilon)


def pgd(
    classify: Classify,
    pixels: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    steps: int,
    size: float | None,
    seed: int,
    indices: Tensor,
    check: Callable[[], object] = lambda: None,
) -> Tensor:
    """Climb the loss in many small steps, from a random start, never further than ε from the image.

    Projected gradient descent on −L: Madry et al., "Towards deep learning models resistant to adversarial attacks"
    (ICLR 2018), equation in section 2.1: x ← Π(x + α·sign(∇x L(x, y))). A step's `size` α is in 1/255 as ε is;
    None means 2.5·ε/steps, which reaches the ball's edge from any start. The start is uniform in the ball and depends
    only on the seed and the image's index, (N,) int64, so it is the same for all networks. The last iterate is
    returned. `check` is called before each step and may raise to give up.
    """
    reach, size = epsilon / 255, 2.5 * epsilon / steps if size is None else size
    start = 2 * Draws(ATTACK, seed, "pgd", indices).uniform(*pixels.shape[1:]) - 1
    attacked = (pixels + reach * start).clamp(0, 1)
    for _ in range(steps):
        check()
        attacked = step(attacked, ascent(classify, attacked, labels), size)
        attacked = torch.minimum(torch.maximum(attacked, pixels - reach), pixels + reach).clamp(0, 1)
    return attacked


def ascent(classify: Classify, pixels: Tensor, labels: Tensor) -> Tensor:
    """Return the sign of the gradient of the labels' cross-entropy for each pixel: −1, 0 or 1; 0 for a NaN."""
    with torch.enable_grad():
        leaf = pixels.detach().requires_grad_()
        loss = functional.cross_entropy(classify(leaf), labels, reduction="sum")  # sum: each image has its own gradient
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient.sign().nan_to_num()  # a NaN would make the pixel NaN, and that is no attack


def step(pixels: Tensor, sign: Tensor, size: float) -> Tensor:
    """Change pixels by `size`/255 in the direction of `sign`, and keep them in [0, 1]."""
    return (pixels + size / 255 * sign).clamp(0, 1)
