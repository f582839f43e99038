"""What would be trained: the objective's formula, a check of every network and loss, and the plan's table."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kdrun import losses, models
from kdrun.console import count, size
from kdrun.results.tables import Table
from kdrun.training.estimate import memory
from kdrun.training.networks import build_model
from kdrun.training.obtain import Workshop
from kdrun.training.request import Request

log = logging.getLogger(__name__)


def formula(request: Request) -> str:
    """Give the whole objective with its numbers."""
    return losses.build(request.spec.objective).formula() if request.spec.objective else "weights from a file"


def check(requests: Sequence[Request]) -> None:
    """Build every network and objective once, before anything trains. Raises ValueError for what does not fit."""
    seen = set()
    for request in requests:
        key = repr((request.spec.model, request.weights))
        if key not in seen:
            seen.add(key)
            try:
                build_model(request.spec, weights=request.weights)
            except ValueError as error:
                group = "teacher" if request.role == "teacher" else "student"
                raise ValueError(f"{group}={request.model}: {error}") from None


def show(requests: Sequence[Request], shop: Workshop) -> None:
    """Print what would be trained and what is found, with sizes and estimated memory; train nothing."""
    rows = []
    for request in requests:
        spec = request.spec
        found = shop.store.find(spec.fingerprint)
        module = build_model(spec)
        parameters = models.describe(module, spec.model["in_channels"], tuple(spec.model["image_size"])).parameters
        if found is None:
            near = shop.store.nearest(request.role, request.dataset, request.model, spec)
            state = "to train" + (f" (differs from {near[0]} in {', '.join(near[1][:3])})" if near else "")
        else:
            state = "found" if found.finished else f"found, {found.result['status']}"
        rows.append(
            [
                request.role,
                request.model,
                str(spec.seed),
                spec.fingerprint,
                count(parameters),
                f"{len(request.sets.train):,}",
                str(spec.recipe.get("epochs", "–")),
                size(memory(module, spec)) if "epochs" in spec.recipe else "–",
                state,
            ]
        )
    headings = ["role", "model", "seed", "fingerprint", "parameters", "images", "epochs", "memory", "state"]
    missing = sum(row[-1].startswith("to train") for row in rows)
    print(Table(headings, rows, notes=[f"{missing} of {len(rows)} to train; plan=true trains nothing"]).to_text())
