"""What a network costs: its size, the operations of one image, the time and the memory of a batch."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdrun import models
from kdrun.spec import Spec, canonical

ROUNDS = 10
"""Turns that networks take: what slows the machine down for a moment slows all of them down."""
FEWEST = 10
"""Calls of which a median can be told, however slow they are."""
Call = Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """How one batch size is timed: calls before the first that counts, calls that count, seconds after which to end."""

    batch: int
    warmup: int
    runs: int
    seconds: float


PLANS = (Plan(1, warmup=20, runs=200, seconds=20), Plan(128, warmup=3, runs=50, seconds=30))


def shape(spec: Spec) -> str:
    """Name what a network's cost depends on: its architecture and precision, not its weights or how they start."""
    model = {key: value for key, value in spec.model.items() if key not in ("init", "digest")}
    model["arguments"] = {k: v for k, v in model["arguments"].items() if k != "weights"}
    return canonical([model, spec.model.get("digest") if "target" in model["arguments"] else None, spec.precision])


def operations(network: nn.Module, image: Tensor) -> dict[str, int]:
    """Count the operations of a forward pass over one image (1, C, H, W): {"macs": …, "flops": …}.

    With torch's own counter: a convolution or matrix product of m multiply–add pairs counts as m MACs and 2m FLOPs.
    Biases, normalisation, activations, pooling and other element-wise work are not counted. Papers on small
    networks often call MACs FLOPs.
    """
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)  # warns where triton is missing
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    was = network.training
    network.eval()
    try:
        # as if gradients were wanted, and by plain products: fused attention is not counted by every torch
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network.forward(image.detach().requires_grad_())
    finally:
        network.train(was)
    flops = int(counter.get_total_flops())
    return {"macs": flops // 2, "flops": flops}


def operations_of(spec: Spec) -> dict[str, int]:
    """Count the operations of the network that a spec describes, built for that on the CPU, without its weights.

    Raises ValueError where it cannot be built here, as without the module of an external network.
    """
    described = spec.model
    with models.Unfilled():
        network = models.build(
            described["use"],
            num_classes=described["num_classes"],
            in_channels=described["in_channels"],
            image_size=tuple(described["image_size"]),
            mean=spec.data["mean"],
            std=spec.data["std"],
            blank=True,
            **described["arguments"],
        )
    return operations(network, torch.zeros(1, described["in_channels"], *described["image_size"]))


def latency(call: Call, *, warmup: int, runs: int) -> dict[str, float]:
    """Time a call: median and 95th percentile in milliseconds over so many runs, after some that do not count.

    The call must end when its work has ended: on a GPU it synchronises.
    """
    return latencies({"": call}, warmup=warmup, runs=runs)[""]


def latencies(
    calls: Mapping[str, Call], *, warmup: int, runs: int, seconds: float = float("inf"), check: Call = lambda: None
) -> dict[str, dict[str, float]]:
    """Time several calls in turns: {name: {"median_ms": …, "p95_ms": …, "runs": …, "warmup": …}}.

    In each turn a call runs once unmeasured, to have its own data in the caches, and then its share of the runs.
    One that has taken `seconds` gets no further turn once it has run ten times. `check` is called before every turn
    and may raise to give up.
    """
    for call in calls.values():
        for _ in range(warmup):
            check()
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS):
        share = runs * (turn + 1) // ROUNDS - runs * turn // ROUNDS
        for name, call in calls.items():
            if share and (sum(times[name]) < seconds or len(times[name]) < min(FEWEST, runs)):
                check()
                call()
                times[name] += [_timed(call) for _ in range(share)]
    return {name: _summed_up(taken, warmup) for name, taken in times.items()}


def _timed(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _summed_up(taken: Sequence[float], warmup: int) -> dict[str, float]:
    median, p95 = (float(value) for value in np.percentile(1000 * np.asarray(taken), [50, 95]))
    return {"median_ms": median, "p95_ms": p95, "runs": len(taken), "warmup": warmup}


def ending(call: Call, device: torch.device) -> Call:
    """Return the call that ends when the device's work for it has ended."""
    if device.type != "cuda":
        return call

    def finished() -> None:
        call()
        torch.cuda.synchronize(device)

    return finished


def peak_memory(network: nn.Module, call: Call, images: Tensor) -> int:
    """Return the bytes that a forward pass needs at its worst moment: weights, images and tensors alive at once.

    On a GPU what torch's allocator has handed out, which includes the workspaces of cuDNN and cuBLAS. On a CPU the
    tensors that the pass makes, counted as they come and go; scratch memory inside of kernels is not seen there.
    """
    state = [*network.parameters(), *network.buffers()]
    held = sum(t.numel() * t.element_size() for t in state) + images.numel() * images.element_size()
    device = images.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return held + torch.cuda.max_memory_allocated(device) - before
    return held + _made(call, [*state, images])


def _made(call: Call, known: Sequence[Tensor]) -> int:
    """Count the bytes of the tensors alive at once that a call makes, besides those `known` before, on the CPU."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    alive = {t.untyped_storage()._cdata for t in known}
    now = most = 0

    def freed(place: int, size: int) -> None:
        nonlocal now
        now -= size
        alive.discard(place)

    class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Sees every tensor that an operation gives; views share their memory with what they are views of."""

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal now, most
            given = function(*args, **(kwargs or {}))
            for tensor in (leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)):
                storage = tensor.untyped_storage()
                if storage._cdata not in alive:
                    alive.add(storage._cdata)
                    now += storage.nbytes()
                    most = max(most, now)
                    weakref.finalize(storage, freed, storage._cdata, storage.nbytes())
            return given

    with Watched():  # type: ignore[no-untyped-call]
        call()
    return most
