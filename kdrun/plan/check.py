"""Checks before training: the objective's formula, a trial of every network and loss, and the table of plan=true."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kdrun import console, losses, models
from kdrun.caller import CALLER
from kdrun.config import TIME
from kdrun.console import count, size
from kdrun.losses import contract
from kdrun.models.base import Classifier, Outputs, logits_alone
from kdrun.models.trial import same
from kdrun.plan.waves import Entry
from kdrun.results.tables import Table
from kdrun.spec import Spec, canonical
from kdrun.training import devices, distributed
from kdrun.training.estimate import memory
from kdrun.training.networks import build_model, sample_outputs
from kdrun.training.obtain import Obtainer
from kdrun.training.request import Request

log = logging.getLogger(__name__)
KEPT = 8  # networks whose outputs for blank images are cached in a process


def formula(request: Request) -> str:
    """Return the whole objective with its numbers."""
    return losses.build(request.spec.objective).formula() if request.spec.objective else "from a file"


@dataclass(frozen=True)
class Network:
    """A network before it trains: its outputs for blank images and its number of parameters."""

    outputs: Outputs
    parameters: int
    remarks: tuple[str, ...] = ()


_built: dict[str, Network] = {}
"""The networks last built in this process: cells of a sweep mostly share their networks, and are checked twice."""


def check(entries: Sequence[Entry], device: torch.device) -> None:
    """Build every network and objective once, before anything trains.

    Raise ValueError if images or layers do not fit, or if memory banks are larger than the device's memory.
    """
    networks: dict[str, Network] = {}
    specs = {entry.spec.fingerprint: entry.spec for entry in entries}
    for entry in entries:
        if (key := _network_key(entry.spec.model)) not in networks:
            networks[key] = _network(entry, key)
            role = entry.role if entry.role in ("teacher", "assistant") else "student"
            for remark in networks[key].remarks:
                log.info("%s: %s", role, remark)
    checked: set[str] = set()
    for entry in entries:
        spec, request = entry.spec, entry.request
        if request is None or not spec.objective:
            continue
        distributed.current().refuse_small(request.label, spec.recipe["batch_size"])
        peers = [networks[_network_key(peer["model"])] for peer in spec.peers]
        teachers = peers or [networks[_network_key(specs[fingerprint].model)] for fingerprint in spec.teachers]
        network = networks[_network_key(spec.model)]
        if entry.role == "assistant" and network.parameters > max(t.parameters for t in teachers):
            log.warning(
                "%s has %s parameters, more than the network it learns from: an assistant is usually of intermediate "
                "size",
                entry.name,
                count(network.parameters),
            )
        key = canonical([id(network), [id(t) for t in teachers], spec.objective, spec.recipe["batch_size"]])
        if key not in checked:
            checked.add(key)
            _match(request, network, teachers, device)


def _match(request: Request, network: Network, teachers: Sequence[Network], device: torch.device) -> None:
    """Try an objective on the kind of outputs that it will compare. Raise ValueError if it cannot compare them."""
    objective = losses.build(request.spec.objective)
    setting = request.setting
    own, *outputs = (network.outputs, *(teacher.outputs for teacher in teachers))
    if objective.needs_strong:  # outputs for the strong view have the same shapes
        own, *outputs = (given._replace(strong=given) for given in (own, *outputs))
    banks = objective.memory(own, outputs, setting)
    if banks:
        listed = ", ".join(f"loss.{name} {size(number)}" for name, number in banks.items())
        log.info("%s: memory on %s besides networks and images: %s", request.label, device, listed)
    if sum(banks.values()) > (free := devices.free_memory(device)):
        needed = ", ".join(f"loss.{name} needs {size(number)}" for name, number in banks.items())
        raise ValueError(
            f"{needed} for {setting.num_samples:,} images, but {device} has {size(free)} free; choose a loss without "
            "a bank, less of the data (transfer.fraction), or another device"
        )
    objective.prepare(own, outputs, setting)
    height, width = request.spec.model["image_size"]
    images = torch.zeros(len(own.logits), request.spec.model["in_channels"], height, width)
    contract.attempt(objective, own, outputs, images, setting.labels[: len(images)])
    own_parameters = sum(p.numel() for p in objective.parameters())
    if own_parameters > network.parameters:
        log.info(
            "%s: its loss has %s trainable parameters besides the network's %s; they are not exported",
            request.label,
            count(own_parameters),
            count(network.parameters),
        )


def _network(entry: Entry, key: str) -> Network:
    """Return the network with this key, from the cache or newly built."""
    request = entry.request
    known = canonical([key, request is None, request and request.weights, entry.spec.recipe.get("adopted")])
    network = _built.pop(known, None) or _build(entry)
    _built[known] = network
    for oldest in list(_built)[:-KEPT]:
        del _built[oldest]
    return network


def _build(entry: Entry) -> Network:
    request, spec = entry.request, entry.spec
    if spec.answered:
        return Network(logits_alone(torch.zeros(2, spec.model["num_classes"])), 0)
    weights = request.weights if request else None
    try:
        module = build_model(spec, seed=spec.seed, weights=weights, blank=request is None)
        if request is not None and not request.adopted:
            _refuse_untrainable(module, spec, weights)
    except ValueError as error:
        if request is None:
            raise
        group = "teacher" if entry.role == "teacher" else "student"
        raise ValueError(f"{group}={request.model}: {error}") from None
    remarks = tuple(f"{module.called} {remark}" for remark in module.remarks)
    return Network(sample_outputs(module, spec), sum(p.numel() for p in module.parameters()), remarks)


def _refuse_untrainable(module: Classifier, spec: Spec, weights: str | None) -> None:
    """Raise ValueError if a network has no weights to train, or if its initial weights do not follow from the seed."""
    if not any(p.requires_grad for p in module.parameters()):
        raise ValueError(f"{module.called} has no weights to train: all are frozen, or there are none")
    if not module.foreign:
        return
    second = build_model(spec, seed=spec.seed, weights=weights).state_dict()
    differing = [name for name, value in module.state_dict().items() if not same(value, second.get(name))]
    if differing:
        raise ValueError(
            f"{module.called}: two networks made with seed={spec.seed} start from different weights "
            f"({', '.join(differing[:3])}): draw them with the global random generators of torch, NumPy or "
            "Python, which kdrun seeds"
        )


def _network_key(model: Mapping[str, Any]) -> str:
    """Return a network's description as a key, without `init`, which selects initial weights and changes no shape."""
    return canonical({key: value for key, value in model.items() if key != "init"})


def show(requests: Sequence[Request], obtainer: Obtainer, plan: object = True) -> dict[str, float]:
    """Print what would be trained and what the store has, with sizes and estimated memory; train nothing.

    With plan=time, also print the estimated training times, and return them in seconds by fingerprint.
    """
    seconds: dict[str, float] = {}
    if plan == TIME:
        from kdrun.plan import timing

        missing = list({r.spec.fingerprint: r for r in obtainer.missing(requests)}.values())
        seconds = timing.seconds(requests, missing, obtainer)
    rows = []
    for request in requests:
        spec = request.spec
        artifact = obtainer.store.find(spec.fingerprint)
        module = None if spec.answered else build_model(spec)
        shape = spec.model["in_channels"], tuple(spec.model["image_size"])
        parameters = 0 if module is None else models.describe(module, *shape).parameters
        if artifact is None:
            state = "to read" if spec.answered else "to train"
            if nearest := obtainer.store.nearest(request.role, request.dataset, request.model, spec):
                log.log(
                    console.DETAIL, "%s: differs from %s in %s", spec.fingerprint, nearest[0], ", ".join(nearest[1])
                )
        else:
            state = "found" if artifact.finished else f"found, {artifact.result['status']}"
        rows.append(
            [
                request.role,
                request.model,
                str(spec.seed),
                spec.fingerprint,
                count(parameters) if parameters else "–",
                f"{len(request.sets.train):,}",
                str(spec.recipe.get("epochs", "–")),
                size(memory(module, spec)) if module is not None and "epochs" in spec.recipe else "–",
                console.seconds(seconds[spec.fingerprint]) if spec.fingerprint in seconds else "–",
                state,
            ]
        )
    headings = ["role", "model", "seed", "fingerprint", "params", "images", "epochs", "memory", "estimate", "state"]
    distinct = {row[headings.index("fingerprint")]: row for row in rows}  # with alpha=0 the student is the baseline
    to_train = sum(row[-1].startswith("to train") for row in distinct.values())
    notes = [f"{to_train} of {len(distinct)} to train; plan={TIME if plan == TIME else 'true'} trains nothing"]
    if seconds:
        total = console.seconds(sum(seconds.values()))
        compiling = ", and what compiling takes" if any(r.spec.compiled for r in requests) else ""
        notes.append(
            f"estimate: from a few timed steps on throw-away copies; about {total} in all on "
            f"{devices.describe(obtainer.device)}{compiling}"
        )
    table = Table(headings, rows, notes=notes)
    table = table if seconds else table.without("estimate")
    if (caller := CALLER.get()) is not None:
        caller.plans.append(table.to_json())
    else:
        print(table.to_text("a wider terminal shows them"))
    return seconds
