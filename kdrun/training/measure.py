"""A network run over a set without gradient: its logits, its accuracy, its loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdrun.data.batches import Batch, in_order
from kdrun.data.sets import FileSet, ImageSet
from kdrun.evaluation.classes import balanced_accuracy, confusion
from kdrun.evaluation.hits import hits
from kdrun.models.base import Outputs
from kdrun.spec import Spec
from kdrun.training import devices
from kdrun.training.distributed import ALONE, Ranks
from kdrun.training.stop import StopFlag

BATCH_SIZE = 512


@dataclass(frozen=True)
class Measured:
    """Accuracy and mean negative log-likelihood (nats) of a network on one set, with the logits (N, C)."""

    accuracy: float
    nll: float
    logits: Tensor
    labels: Tensor

    @property
    def balanced(self) -> float:
        """The mean accuracy over the classes that have samples, each counting the same."""
        known = self.labels >= 0
        return balanced_accuracy(confusion(self.logits[known].numpy(), self.labels[known].numpy()))

    def numbers(self) -> dict[str, float]:
        """Return what a result file holds."""
        return {"accuracy": self.accuracy, "nll": self.nll}


@torch.no_grad()
def measure(
    model: nn.Module, batches: Iterable[Batch], precision: str, device: torch.device, ranks: Ranks = ALONE
) -> Measured:
    """Run a network in eval mode over a set, in order. Logits come back in float32 on the CPU.

    Where batches are dealt out to several `ranks`, each gets all that came of them.
    """
    devices.set_float32(precision)
    was = model.training
    model.eval()
    logits, labels = [], []
    try:
        for batch in batches:
            with devices.autocast(precision, device):
                outputs: Outputs = model.forward(batch.images)  # never compiled: it is seldom, and of other shapes
                logits.append(outputs.logits.float())
            labels.append(batch.labels)
    finally:
        model.train(was)
    z, y = ranks.gather_batches(logits, device), ranks.gather_batches(labels, device)
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
    workers: int = 0,
    ranks: Ranks = ALONE,
) -> Measured:
    """Measure a network on a set, in its order and without augmentation. Raise Interrupted once a signal has come.

    Several `ranks` do so together and cannot stop half-way.
    """

    def batches() -> Iterator[Batch]:
        for batch in in_order(
            images,
            batch_size=batch_size,
            mean=spec.data["mean"],
            std=spec.data["std"],
            device=device,
            workers=workers,
            rank=ranks.rank,
            ranks=ranks.count,
        ):
            if ranks.count == 1:
                stop.check()
            yield batch

    return measure(model, batches(), spec.precision, device, ranks)
