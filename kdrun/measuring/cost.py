"""What a network costs: the operations of one image, the latency and the memory of a batch."""

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

ROUNDS = 10  # turns that networks take, so that a short slowdown of the machine affects all of them
FEWEST = 10  # the fewest timed calls for a median, however slow they are
Call = Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """How one batch size is timed: warm-up calls, measured calls, and the seconds after which to stop."""

    batch: int
    warmup: int
    runs: int
    seconds: float


PLANS = (Plan(1, warmup=20, runs=200, seconds=20), Plan(128, warmup=3, runs=50, seconds=30))


def shape(spec: Spec) -> str:
    """Return what a network's cost depends on: its architecture and precision, not its weights."""
    model = {key: value for key, value in spec.model.items() if key not in ("init", "digest")}
    model["arguments"] = {k: v for k, v in model["arguments"].items() if k != "weights"}
    return canonical([model, spec.model.get("digest") if "target" in model["arguments"] else None, spec.precision])


def operations(network: nn.Module, image: Tensor) -> dict[str, int]:
    """Return the operations of a forward pass over one image (1, C, H, W): {"macs": …, "flops": …}.

    By torch's own counter: a convolution or matrix product of m multiply–add pairs counts as m MACs and 2m FLOPs.
    Biases, normalisation, activations, pooling and other element-wise work are not counted. Papers on small
    networks often call MACs FLOPs.
    """
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)  # it warns if triton is missing
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    was = network.training
    network.eval()
    try:
        # with gradients and attention as plain products: not every torch version counts fused attention
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network.forward(image.detach().requires_grad_())
    finally:
        network.train(was)
    flops = int(counter.get_total_flops())
    return {"macs": flops // 2, "flops": flops}


def operations_of(spec: Spec) -> dict[str, int]:
    """Return the operations of the network that a spec describes, built on the CPU without its weights.

    Raise ValueError if it cannot be built here, for example without the module of an external network.
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
    """Return median and 95th percentile in milliseconds of a call over `runs`, after `warmup` unmeasured ones.

    The call must return only when its work is done: on a GPU it must synchronise.
    """
    return latencies({"": call}, warmup=warmup, runs=runs)[""]


def latencies(
    calls: Mapping[str, Call], *, warmup: int, runs: int, seconds: float = float("inf"), check: Call = lambda: None
) -> dict[str, dict[str, float]]:
    """Return the latencies of calls timed in turns: {name: {"median_ms": …, "p95_ms": …, "runs": …, "warmup": …}}.

    In each turn a call runs once unmeasured, to fill the caches with its own data, and then its share of the runs.
    A call that has taken `seconds` gets no further turn once it has run ten times. `check` is called before every turn
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
    """Return a call that returns only when the device has done its work."""
    if device.type != "cuda":
        return call

    def finished() -> None:
        call()
        torch.cuda.synchronize(device)

    return finished


def peak_memory(network: nn.Module, call: Call, images: Tensor) -> int:
    """Return the peak memory of a forward pass in bytes: weights, images and tensors alive at once.

    On a GPU it is what torch's allocator has handed out, with the workspaces of cuDNN and cuBLAS. On a CPU it is the
    sum of the tensors alive, without scratch memory inside of kernels.
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
    """Return the peak bytes of the tensors that a call makes on the CPU, besides those `known` before."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    alive = {t.untyped_storage()._cdata for t in known}
    now = most = 0

    def freed(place: int, size: int) -> None:
        nonlocal now
        now -= size
        alive.discard(place)

    class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Count the storage of every operation's results; a view shares its base's storage and adds nothing."""

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
