"""The cost of a run's networks: operations, latency and memory, measured in turns and kept beside each network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.lifecycle.measurements import enough_memory, progress
from kdrun.measuring import cost
from kdrun.measuring.cache import cache, cached
from kdrun.results.cost import Machine, machine_of
from kdrun.store import Artifact
from kdrun.training import devices
from kdrun.training.networks import load_model, on_device
from kdrun.training.stop import StopFlag

log = logging.getLogger(__name__)


def measure_cost(
    artifacts: Sequence[Artifact], on: Sequence[torch.device], stop: StopFlag, *, force: bool = False
) -> list[Machine]:
    """Measure what networks cost on some devices, in turns, keep the numbers beside each, and give the machines.

    What was kept before is taken, but with `force`, where all of it comes from one sitting, so that factors between
    networks hold; networks of one architecture are measured once. Raises Interrupted when a signal came.
    """
    groups: dict[str, list[Artifact]] = {}
    for artifact in artifacts:
        groups.setdefault(cost.shape(artifact.spec), []).append(artifact)
    for device in on:
        known = [cached(a.folder, "cost", cost_settings(device, a.spec.precision)) for a in artifacts]
        if not force and all(known) and len({found["sitting"] for found in known if found}) == 1:
            log.info("cost on %s: found for all %d networks", devices.describe(device), len(artifacts))
            continue
        sitting = datetime.now(UTC).isoformat(timespec="microseconds")
        with enough_memory(cost.PLANS[-1].batch, fixed=True):
            measured = _costs({name: group[0] for name, group in groups.items()}, device, stop)
        for name, group in groups.items():
            for artifact in group:
                settings = cost_settings(device, artifact.spec.precision)
                cache(artifact.folder, "cost", settings, {"sitting": sitting, **measured[name]})
    return [machine_of({"settings": cost_settings(device, "")}) for device in on]


def cost_settings(device: torch.device, precision: str) -> dict[str, Any]:
    """Return all that determines what a network is measured to cost."""
    return {
        "device": devices.describe(device),
        "kind": device.type,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "torch": torch.__version__,
        "plans": [vars(plan) for plan in cost.PLANS],
    }


def cost_devices(asked: str, device: torch.device) -> list[torch.device]:
    """Return what cost is measured on: the device that was named; with auto the CPU too, where there is a GPU."""
    return [device, torch.device("cpu")] if asked == "auto" and device.type != "cpu" else [device]


def _costs(subjects: dict[str, Artifact], device: torch.device, stop: StopFlag) -> dict[str, dict[str, Any]]:
    """Measure one network of each architecture."""
    networks = {name: on_device(load_model(a), device).eval().requires_grad_(False) for name, a in subjects.items()}
    found: dict[str, dict[str, Any]] = {}
    for name, network in networks.items():
        stop.check()
        count = sum(p.numel() for p in network.parameters())
        counted = cost.operations(network, _images(subjects[name], 1, device))
        found[name] = {"parameters": count, **counted, "latency": {}, "memory": {}}
    with progress(len(networks) * len(cost.PLANS), " step") as bar, torch.no_grad():
        for plan in cost.PLANS:
            bar.set_description_str(f"cost on {device.type}, batch {plan.batch}")
            for precision in {artifact.spec.precision for artifact in subjects.values()}:
                devices.set_float32(precision)
                alike = [name for name, artifact in subjects.items() if artifact.spec.precision == precision]
                given = {name: _images(subjects[name], plan.batch, device) for name in alike}
                calls = {name: _forward(networks[name], given[name], precision, device) for name in alike}
                timed = cost.latencies(
                    {name: cost.ending(call, device) for name, call in calls.items()},
                    warmup=plan.warmup,
                    runs=plan.runs,
                    seconds=plan.seconds,
                    check=stop.check,
                )
                for name in alike:
                    found[name]["latency"][str(plan.batch)] = timed[name]
                    memory = cost.peak_memory(networks[name], calls[name], given[name])
                    found[name]["memory"][str(plan.batch)] = memory
                bar.update(len(alike))
    return found


def _forward(network: nn.Module, images: Tensor, precision: str, device: torch.device) -> Callable[[], object]:
    def call() -> object:
        with devices.autocast(precision, device):
            return network.forward(images)

    return call


def _images(artifact: Artifact, count: int, device: torch.device) -> Tensor:
    """Make images as normalised ones are: noise of mean 0 and variance 1."""
    shape = (count, artifact.spec.model["in_channels"], *artifact.spec.model["image_size"])
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return images.to(device, memory_format=torch.channels_last)
