"""Helpers of the losses that separate the target class from the others, without rounding either's probability to 0."""

import math

import torch
from torch import Tensor


def is_target(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return which class is the target, (N, C) bool, from (N, C) and labels (N,); none for an unlabelled sample."""
    return torch.arange(log_p.shape[1], device=log_p.device) == labels[:, None]


def of_target(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return log p_y, (N, 1); that of class 0 for an unlabelled sample."""
    return log_p.gather(1, labels.clamp(min=0)[:, None])


def log_rest(log_p: Tensor, target: Tensor) -> Tensor:
    """Return log Σ_{j≠y} p_j, (N, 1), without rounding 1 − p_y to 0 if the target is almost certain."""
    return log_p.masked_fill(target, -math.inf).logsumexp(dim=1, keepdim=True)


def target_and_rest(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return log (p_y, 1 − p_y), (N, 2): of the target class and of all others together."""
    return torch.cat([of_target(log_p, labels), log_rest(log_p, is_target(log_p, labels))], dim=1)


def labelled_mean(losses: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of the losses (N,) of the samples that have a label (not −1), a scalar; 0 if none has."""
    unlabelled = labels < 0
    return losses.masked_fill(unlabelled, 0).sum() / (~unlabelled).sum().clamp(min=1)
