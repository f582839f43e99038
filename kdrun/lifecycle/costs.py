"""The cost of a run's networks: operations, latency and memory, measured in turn and saved with each network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.artifact import Artifact
from kdrun.console import busy
from kdrun.lifecycle.measurements import enough_memory, progress
from kdrun.measuring import cost
from kdrun.measuring.cache import cache, cached
from kdrun.results.cost import Machine, machine_of
from kdrun.signals import StopFlag
from kdrun.training import devices
from kdrun.training.networks import load_model

log = logging.getLogger(__name__)


def measure_cost(
    artifacts: Sequence[Artifact], on: Sequence[torch.device], stop: StopFlag, *, force: bool = False
) -> list[Machine]:
    """Measure the cost of networks on each device in turn, save the numbers with each network, return the machines.

    Unless `force` is set, saved numbers are reused if all come from one sitting: only then are ratios between networks
    valid. Each architecture is measured once. Raise Interrupted if a signal came.
    """
    groups: dict[str, list[Artifact]] = {}
    for artifact in artifacts:
        groups.setdefault(cost.shape(artifact.spec), []).append(artifact)
    for device in on:
        entries = [cached(a.folder, "cost", cost_settings(device, a.spec.precision)) for a in artifacts]
        if not force and all(entries) and len({entry["sitting"] for entry in entries if entry}) == 1:
            log.info("cost on %s: already measured for all %d networks", devices.describe(device), len(artifacts))
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
    """Return every setting that the measured cost of a network depends on."""
    return {
        "device": devices.describe(device),
        "kind": device.type,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "torch": torch.__version__,
        "plans": [vars(plan) for plan in cost.PLANS],
    }


def cost_devices(name: str, device: torch.device) -> list[torch.device]:
    """Return the devices to measure cost on: the one that was typed, or with auto, a GPU and also the CPU."""
    return [device, torch.device("cpu")] if name == "auto" and device.type != "cpu" else [device]


def _costs(subjects: dict[str, Artifact], device: torch.device, stop: StopFlag) -> dict[str, dict[str, Any]]:
    """Return the cost of one network of each architecture."""
    costs: dict[str, dict[str, Any]] = {}
    with busy("counting operations"):
        networks = {name: load_model(a, device).eval().requires_grad_(False) for name, a in subjects.items()}
        for name, network in networks.items():
            stop.check()
            count = sum(p.numel() for p in network.parameters())
            counted = cost.operations(network, _images(subjects[name], 1, device))
            costs[name] = {"parameters": count, **counted, "latency": {}, "memory": {}}
    with progress(len(networks) * len(cost.PLANS), " step") as bar, torch.no_grad():
        for plan in cost.PLANS:
            bar.set_description_str(f"cost on {device.type}, batch {plan.batch}")
            for precision in {artifact.spec.precision for artifact in subjects.values()}:
                devices.set_float32(precision)
                names = [name for name, artifact in subjects.items() if artifact.spec.precision == precision]
                images = {name: _images(subjects[name], plan.batch, device) for name in names}
                calls = {name: _forward(networks[name], images[name], precision, device) for name in names}
                latencies = cost.latencies(
                    {name: cost.ending(call, device) for name, call in calls.items()},
                    warmup=plan.warmup,
                    runs=plan.runs,
                    seconds=plan.seconds,
                    check=stop.check,
                )
                for name in names:
                    costs[name]["latency"][str(plan.batch)] = latencies[name]
                    costs[name]["memory"][str(plan.batch)] = cost.peak_memory(networks[name], calls[name], images[name])
                bar.update(len(names))
    return costs


def _forward(network: nn.Module, images: Tensor, precision: str, device: torch.device) -> Callable[[], object]:
    def call() -> object:
        with devices.autocast(precision, device):
            return network.forward(images)

    return call


def _images(artifact: Artifact, count: int, device: torch.device) -> Tensor:
    """Return noise with the mean 0 and variance 1 of normalised images, (count, C, H, W)."""
    shape = (count, artifact.spec.model["in_channels"], *artifact.spec.model["image_size"])
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, memory_format=torch.channels_last)
