"""Measure a network on a set: its logits, accuracy and loss, without gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdrun.data.answers import Answers
from kdrun.data.batches import Batch, in_order
from kdrun.data.decoders import HERE, Workers
from kdrun.data.sets import FileSet, ImageSet
from kdrun.evaluation.classes import balanced_accuracy, confusion
from kdrun.evaluation.hits import hits
from kdrun.models.base import Outputs
from kdrun.signals import StopFlag
from kdrun.spec import Spec
from kdrun.training import devices
from kdrun.training.distributed import ALONE, Ranks

BATCH_SIZE = 512


@dataclass(frozen=True)
class Measured:
    """Accuracy and mean negative log-likelihood (nats) of a network on a set, logits (N, C) and labels (N,)."""

    accuracy: float
    nll: float
    logits: Tensor
    labels: Tensor

    @property
    def balanced(self) -> float:
        """The mean over the accuracies of the classes that have samples."""
        known = self.labels >= 0
        return balanced_accuracy(confusion(self.logits[known].numpy(), self.labels[known].numpy()))

    def numbers(self) -> dict[str, float]:
        """Return the numbers that a result file holds."""
        return {"accuracy": self.accuracy, "nll": self.nll}


@torch.no_grad()
def measure(
    model: nn.Module, batches: Iterable[Batch], precision: str, device: torch.device, ranks: Ranks = ALONE
) -> Measured:
    """Measure a network in eval mode on batches in their order. Logits are float32 on the CPU.

    If the batches are dealt to several `ranks`, each rank returns the result for all batches.
    """
    devices.set_float32(precision)
    was = model.training
    model.eval()
    logits, labels = [], []
    try:
        for batch in batches:
            with devices.autocast(precision, device):
                outputs: Outputs = model.forward(batch.images)  # not compiled, because shapes differ from training
                logits.append(outputs.logits.float())
            labels.append(batch.labels)
    finally:
        model.train(was)
    return _measured(ranks.gather_batches(logits, device), ranks.gather_batches(labels, device))


def measure_answers(answers: Answers, images: ImageSet | FileSet) -> Measured:
    """Measure another model's answers on those images of a set that have one."""
    rows = answers.places(images)
    return _measured(answers.logits[rows[rows >= 0]], images.labels.cpu()[rows >= 0])


def _measured(z: Tensor, y: Tensor) -> Measured:
    """Return accuracy and loss for logits (N, C) and labels (N,); NaN without labelled images."""
    known = y >= 0
    z_known, y_known = z[known], y[known]
    if not len(y_known):
        return Measured(float("nan"), float("nan"), z.cpu(), y.cpu())
    accuracy = hits(z_known, y_known).double().mean().item()
    nll = functional.cross_entropy(z_known.double(), y_known).item()
    return Measured(accuracy, nll, z.cpu(), y.cpu())


def measure_images(
    model: nn.Module,
    images: ImageSet | FileSet,
    spec: Spec,
    device: torch.device,
    stop: StopFlag,
    *,
    batch_size: int = BATCH_SIZE,
    workers: Workers = HERE,
    ranks: Ranks = ALONE,
) -> Measured:
    """Measure a network on a set, in its order and without augmentation. Raise Interrupted once a signal has come.

    Several `ranks` share the work, and a signal does not stop them half-way.
    """

    def batches() -> Iterator[Batch]:
        for batch in in_order(
            images,
            batch_size=batch_size,
            mean=spec.data["mean"],
            std=spec.data["std"],
            device=device,
            workers=workers if ranks.count > 1 else replace(workers, waiting=stop.check),
            rank=ranks.rank,
            ranks=ranks.count,
        ):
            if ranks.count == 1:
                stop.check()
            yield batch

    return measure(model, batches(), spec.precision, device, ranks)
