"""A network's logits for stored images, bit for bit as a training computes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import tqdm

from kdrun.console import bars_off
from kdrun.data.batches import in_order
from kdrun.data.decoders import Workers
from kdrun.data.sets import FileSet, ImageSet
from kdrun.signals import StopFlag
from kdrun.spec import Spec
from kdrun.training import devices
from kdrun.training.teaching import in_full_batches


@torch.no_grad()
def answer(
    network: nn.Module,
    images: ImageSet | FileSet,
    spec: Spec,
    device: torch.device,
    stop: StopFlag,
    *,
    batch_size: int,
) -> Tensor:
    """Return the logits (N, C), float32 on the CPU, of a network in eval mode, in full batches of one size.

    With a training's batch size and device, they are exactly the logits that its students learn from without
    augmentation. Raise Interrupted once a signal has come.
    """
    devices.set_float32(spec.precision)
    batches = in_order(
        images,
        batch_size=batch_size,
        mean=spec.data["mean"],
        std=spec.data["std"],
        device=device,
        workers=Workers(waiting=stop.check),
    )
    logits = []
    with tqdm(total=len(images), desc="answering", unit="image", delay=0.5, leave=False, disable=bars_off()) as bar:
        for batch in batches:
            stop.check()
            outputs = in_full_batches(network, batch.images, batch_size, spec.precision, device)
            logits.append(outputs.logits.float().cpu())
            bar.update(len(batch.images))
    return torch.cat(logits)
