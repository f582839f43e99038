"""A learner: a network in training with its objective, its optimiser, and all of their state.

Its position is (epoch, batch). `state()` has everything that it needs to go on from there, so a resumed training
ends bit for bit like an uninterrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.data.batches import Batch
from kdrun.evaluation.hits import hits
from kdrun.losses.base import Objective
from kdrun.models.base import Outputs
from kdrun.randomness import DROPOUT, key
from kdrun.training import devices, optimizers, schedule
from kdrun.training.average import Average
from kdrun.training.compiled import compile_forward
from kdrun.training.distributed import ALONE, Ranks
from kdrun.training.measure import Measured
from kdrun.training.networks import guard_inputs, on_device


class Diverged(RuntimeError):
    """A loss, a gradient or an output of this learner is no longer finite."""


@dataclass
class Progress:
    """How far a training has come; plain values that are saved as they are."""

    epoch: int = 0  # number of finished epochs; the next batch is `batch` of epoch `epoch`, both from 0
    batch: int = 0
    seconds: float = 0.0  # spent in the current epoch
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0  # from 1; 0: none yet
    best_key: list[float] = field(default_factory=list)
    mark: float | None = None  # the accuracy that the next improvement must exceed by recipe.min_delta
    stale: int = 0  # epochs without such an improvement
    stopped: bool = False


class Learner:
    """A network, its objective, optimiser, schedule, average and random state."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        objective: Objective,
        recipe: Mapping[str, Any],
        *,
        steps_per_epoch: int,
        seed: int,
        precision: str,
        device: torch.device,
        compiled: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.name, self.recipe, self.precision, self.device = name, recipe, precision, device
        self.seed, self.ranks = seed, ranks
        self.model = on_device(ranks.sync_batch_norm(model, device), device).train()
        self.objective = objective.to(device).train()
        self.steps_per_epoch = steps_per_epoch
        self.trained = [p for m in (self.model, self.objective) for p in m.parameters() if p.requires_grad]
        self.optimizer = optimizers.build(recipe, self.trained)
        self.average = Average(self.model, recipe["ema_decay"]) if recipe["ema_decay"] else None
        if compiled:
            compile_forward(self.model)
        self.network = ranks.data_parallel(self.model)  # what training calls
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        self.best_terms: dict[str, Tensor] = {}  # the terms' state to keep (projections), from the same epoch
        self.rng = _seeded_rng(seed, device)  # independent of the other learners in its cohort
        self.term_names = list(objective.weights)
        # results of the steps stay on the device and are read once at the end of the epoch
        self.losses = torch.zeros(steps_per_epoch, 1 + len(self.term_names), dtype=torch.float64, device=device)
        self.counts = torch.zeros(2, dtype=torch.int64, device=device)  # correct, labelled

    @property
    def done(self) -> bool:
        """Whether nothing is left to train."""
        return self.progress.stopped or self.progress.epoch >= self.recipe["epochs"]

    @property
    def position(self) -> tuple[int, int]:
        """The epoch and the batch that come next, both from 0."""
        return self.progress.epoch, self.progress.batch

    @property
    def evaluated(self) -> nn.Module:
        """The network that is measured and committed: the average if there is one."""
        return self.average.module if self.average is not None else self.model

    @property
    def _balanced(self) -> bool:
        return self.recipe.get("select") == "balanced"  # get, because a spec omits neutral defaults

    def lr(self, batch: int) -> float:
        """Return the learning rate of a batch of the current epoch."""
        step = self.progress.epoch * self.steps_per_epoch + batch
        return float(self.recipe["lr"] * schedule.factor(self.recipe, step, self.steps_per_epoch))

    def forward(self, batch: Batch) -> Outputs:
        """Return the network's outputs for a batch, with this learner's own dropout. No host synchronisation.

        If the objective compares two views, the outputs for the strong view are added; its dropout is drawn second.
        """
        started = time.perf_counter()
        autocast = devices.autocast(self.precision, self.device)
        dropout = devices.drawing_from(self._dropout_rng(), self.device)
        with dropout, autocast:
            student = self._seen(batch)
            if self.objective.needs_strong:
                assert batch.strong is not None, "the batches of a cohort have what its objectives need"
                student = student._replace(strong=self._seen(batch.strong))
        self.progress.seconds += time.perf_counter() - started
        return self.ranks.gather(student, batch)

    def _seen(self, batch: Batch) -> Outputs:
        with guard_inputs(batch.images, self.name):
            outputs: Outputs = self.network(batch.images)
        return outputs

    def update(self, batch: Batch, student: Outputs, teachers: Sequence[Outputs]) -> None:
        """Compute the objective, backpropagate and update the weights. No host synchronisation."""
        started = time.perf_counter()
        batch = batch.whole
        lr = self.lr(self.progress.batch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with devices.drawing_from(self.rng, self.device):  # some terms draw samples
            total, values = self.objective(student, teachers, batch)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.ranks.average_gradients(self.objective)
        if self.recipe["clip_norm"]:
            nn.utils.clip_grad_norm_(self.trained, self.recipe["clip_norm"])
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        with torch.no_grad():
            self.losses[self.progress.batch] = torch.stack([total.detach(), *values.values()]).to(torch.float64)
            labels = batch.dominant
            right = hits(student.logits, labels).sum()  # an unlabelled -1 is never right
            self.counts += torch.stack([right, (labels >= 0).sum()])
        self.progress.batch += 1
        self.progress.seconds += time.perf_counter() - started

    def _dropout_rng(self) -> list[Tensor]:
        """Return the generator states for dropout: the learner's own; with several ranks, seeded by rank and position.

        With several ranks, only the objective uses the learner's own state: it must draw the same on all ranks.
        """
        if self.ranks.count == 1:
            return self.rng
        return _seeded_rng(key(DROPOUT, self.seed, self.ranks.rank, *self.position), self.device)

    def broadcast_buffers(self) -> None:
        """Overwrite buffers that may differ between ranks (BatchNorm's averages, banks) with rank 0's."""
        modules = (self.model, self.objective, self.average)
        self.ranks.broadcast_tensors(*(b for m in modules if m is not None for b in m.buffers()))

    def end_epoch(
        self, val: Measured | None, test: Measured | None, images: int, shared_seconds: float
    ) -> dict[str, float]:
        """Close the epoch: read the results of its steps, select the best epoch, return the new row of the history.

        Raise Diverged, before anything is selected, if a loss, a weight or an output is no longer finite.
        """
        progress = self.progress
        table = self.losses.cpu()
        self._check(table, val, test)
        seconds = progress.seconds + shared_seconds
        right, labelled = self.counts.tolist()
        row: dict[str, float] = {
            "epoch": progress.epoch + 1,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": round(seconds, 4),
            "images_per_second": round(images / seconds, 1) if seconds else 0.0,
            "loss": float(table[:, 0].mean()),
            **{f"loss.{name}": float(table[:, 1 + i].mean()) for i, name in enumerate(self.term_names)},
            "train_accuracy": right / labelled if labelled else float("nan"),
        }
        if val is not None:
            row |= {"val_accuracy": val.accuracy, "val_nll": val.nll}
            if self._balanced:
                row["val_balanced_accuracy"] = val.balanced
        if test is not None:
            row |= {"test_accuracy": test.accuracy, "test_nll": test.nll}
        progress.history.append(row)
        self._select(val)
        progress.epoch, progress.batch, progress.seconds = progress.epoch + 1, 0, 0.0
        self.losses.zero_()
        self.counts.zero_()
        return row

    def _check(self, table: Tensor, val: Measured | None, test: Measured | None) -> None:
        bad = (~table.isfinite()).nonzero()
        batch, column = (int(v) for v in bad[0]) if len(bad) else (self.steps_per_epoch - 1, 0)
        here = f"{self.name}: epoch {self.progress.epoch + 1}"
        weights = " + ".join(f"{w:g}·{n}" for n, w in self.objective.weights.items())
        lr = f"lr {self.lr(batch):.3g}{_temperatures(self.objective)}"
        hint = f"loss {weights}, {lr}; try a smaller learning rate, or recipe.clip_norm=1"
        if len(bad):
            broken = [n for i, n in enumerate(self.term_names) if not table[batch, 1 + i].isfinite()]
            term = ", ".join(broken) or "the sum"
            raise Diverged(f"{here}, batch {batch + 1}: {term} is {table[batch, column].item():g} ({hint})")
        modules = (self.model, self.objective, self.average)
        if not all(bool(p.isfinite().all()) for m in modules if m is not None for p in m.parameters()):
            raise Diverged(f"{here}, batch {batch + 1}: a weight is no longer finite ({hint})")
        for part, measured in (("validation", val), ("test", test)):
            if measured is not None and not bool(measured.logits.isfinite().all()):
                raise Diverged(f"{here}: the outputs on {part} data are not finite ({hint})")

    def _select(self, val: Measured | None) -> None:
        """Keep the weights of the best epoch: highest validation accuracy (or balanced accuracy), then lowest loss."""
        progress = self.progress
        epoch = progress.epoch + 1
        key = [float(epoch), 0.0]  # without validation the last epoch is the best
        if val is not None:
            key = [val.balanced if self._balanced else val.accuracy, -val.nll]
        enough = progress.mark is None or key[0] > progress.mark + self.recipe["min_delta"]
        if not progress.best_key or key > progress.best_key:
            progress.best_epoch, progress.best_key = epoch, key
            self.best = {k: v.detach().clone() for k, v in self.evaluated.state_dict().items()}
            self.best_terms = {k: v.detach().clone() for k, v in self.objective.kept().items()}
        progress.mark, progress.stale = (key[0], 0) if enough else (progress.mark, progress.stale + 1)
        if self.recipe["patience"] and val is not None and progress.stale >= self.recipe["patience"]:
            progress.stopped = True

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed training needs; tensors and plain values only."""
        return {
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "best": self.best,
            "best_terms": self.best_terms,
            "rng": list(self.rng),
            "losses": self.losses,
            "counts": self.counts,
            "progress": dict(vars(self.progress)),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.best = {k: v.to(self.device) for k, v in state["best"].items()} if state["best"] else None
        self.best_terms = {k: v.to(self.device) for k, v in state["best_terms"].items()}
        self.rng = [s.cpu() for s in state["rng"]]
        self.losses.copy_(state["losses"])
        self.counts.copy_(state["counts"])
        self.progress = Progress(**state["progress"])


def _seeded_rng(seed: int, device: torch.device) -> list[Tensor]:
    """Return generator states for a learner that depend only on `seed`."""
    states = [torch.Generator().manual_seed(seed).get_state()]
    if device.type == "cuda":
        states.append(torch.Generator(device).manual_seed(seed).get_state())
    return states


def _temperatures(objective: Objective) -> str:
    temperatures = {f"{n}: T={term.student_T:g}" for n, term in objective.terms.items() if hasattr(term, "student_T")}
    return f", {', '.join(sorted(temperatures))}" if temperatures else ""
