"""From a trained learner to an artifact: measure the selected and the last epoch, and make the files."""

from __future__ import annotations

import csv
import io
import logging
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from kdrun import console
from kdrun.artifact import ANSWERS
from kdrun.data.answers import Answers
from kdrun.data.sets import FileSet, ImageSet
from kdrun.evaluation.hits import hits
from kdrun.records import Accuracy, Epoch, ResultJson
from kdrun.spec import Spec
from kdrun.training import devices
from kdrun.training.learner import Diverged, Learner
from kdrun.training.measure import Measured, measure_answers, measure_images
from kdrun.training.networks import build_model, not_finite, on_device
from kdrun.training.request import Request
from kdrun.training.settings import Settings
from kdrun.version import __version__

log = logging.getLogger(__name__)


class ArtifactBuilder:
    """Measures networks and makes the files of their artifacts."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.device = settings, settings.device

    def _measure(self, model: nn.Module, images: ImageSet | FileSet, spec: Spec) -> Measured:
        how = self.settings
        return measure_images(model, images, spec, how.device, how.stop, workers=how.workers)

    def finished(self, request: Request, learner: Learner) -> tuple[dict[str, bytes], ResultJson]:
        """Return the files and the result of a training that reached its end.

        The weights are those of the epoch selected on validation; under the papers' protocol those of the last epoch.
        Raise Diverged if their outputs are not finite.
        """
        spec, progress = request.spec, learner.progress
        paper = spec.recipe["protocol"] == "paper"
        last = {k: v.detach().clone() for k, v in learner.evaluated.state_dict().items()}
        assert learner.best is not None
        epoch, weights = (progress.epoch, last) if paper else (progress.best_epoch, learner.best)
        terms = learner.objective.kept() if paper else learner.best_terms
        model = on_device(build_model(spec, blank=True), self.device)
        model.load_state_dict(weights)
        selected, logits = self._measure_sets(model, request, epoch)
        result = self._result(request) | _training_result(request, learner) | {"selected": selected, "last": selected}
        if epoch != progress.epoch:
            model.load_state_dict(last)
            result["last"], _ = self._measure_sets(model, request, progress.epoch)
        if paper:
            best = max(progress.history, key=lambda row: row["test_accuracy"])
            test: Accuracy = {"accuracy": best["test_accuracy"], "nll": best["test_nll"]}
            result["best_test"] = {"epoch": int(best["epoch"]), "test": test}
        self._compare_average(request, learner)
        files = {"history.csv": history_csv(progress.history), **_weights(weights, result)}
        if terms:  # in a separate file, because exports do not include them
            files["terms.safetensors"] = _safetensors(terms)
        return self._files(request, files, logits), result

    def _compare_average(self, request: Request, learner: Learner) -> None:
        """Warn if the averaged weights, which are committed, are worse on validation than the trained ones.

        Worse means by more than one standard error, the square root of the number of images on which only one of the
        two is right.
        """
        if learner.average is None or request.sets.val is None:
            return
        both = [self._measure(model, request.sets.val, request.spec) for model in (learner.evaluated, learner.model)]
        averaged, live = (hits(m.logits, m.labels)[m.labels >= 0] for m in both)
        lost, gained = int((live & ~averaged).sum()), int((averaged & ~live).sum())
        if lost - gained > (lost + gained) ** 0.5:
            log.warning(
                "%s: after the last epoch validation accuracy is %.2f%% with averaged weights (EMA) and %.2f%% "
                "without: recipe.ema_decay=%g averages over too much of this short training; type a smaller value, "
                "recipe.ema_decay=auto, or recipe.ema_decay=null for none",
                request.label,
                *(100 * m.accuracy for m in both),
                request.spec.recipe["ema_decay"],
            )

    def diverged(self, request: Request, learner: Learner, reason: str) -> tuple[dict[str, bytes], ResultJson]:
        """Return the files and the result of a diverged training: its history, no weights."""
        good = learner.progress.epoch
        reason += f"; the last good epoch was {good}" if good else "; there was no good epoch"
        result = self._result(request) | _training_result(request, learner) | {"status": "diverged", "reason": reason}
        return self._files(request, {"history.csv": history_csv(learner.progress.history)}, {}), result

    def adopted(self, request: Request) -> tuple[dict[str, bytes], ResultJson]:
        """Return the files and the result of a user's file of weights or answers, measured without training.

        Raise ValueError if the outputs of a network with these weights are not finite.
        """
        if request.answers is not None:
            return self._answered(request, request.answers)
        model = on_device(build_model(request.spec, weights=request.weights), self.device)
        try:
            point, logits = self._measure_sets(model, request, 0)
        except Diverged:
            raise ValueError(not_finite(f"{request.label} ({request.weights})", "data set's")) from None
        result = self._result(request) | {"selected": point, "last": point, "formula": "weights from a file"}
        result["parameters"] = sum(p.numel() for p in model.parameters())
        return self._files(request, _weights(model.state_dict(), result), logits), result

    def _answered(self, request: Request, answers: Answers) -> tuple[dict[str, bytes], ResultJson]:
        """Return the files and the result of a model of which only a file of answers is available.

        It is measured on the training images that have answers, on validation images only if all of them have answers,
        and not on test images.
        """
        train, held = measure_answers(answers, request.sets.train), request.sets.val
        val = None if held is None else measure_answers(answers, held)
        whole = val if held is not None and val is not None and len(val.labels) == len(held) else None
        logits = {} if whole is None else {"val": whole.logits, "val_labels": whole.labels}
        numbers = None if whole is None else whole.numbers()
        point: Any = {"epoch": 0, "train": train.numbers(), "val": numbers, "test": None}
        result = self._result(request) | {"selected": point, "last": point, "train_images": len(train.labels)}
        result["formula"] = f"another model's {answers.kind}"
        return self._files(request, {ANSWERS: answers.content()}, logits), result

    def _measure_sets(self, model: nn.Module, request: Request, epoch: int) -> tuple[Epoch, dict[str, Tensor]]:
        """Measure a network on all three sets. Return the numbers, and the logits of validation and test."""
        sets = request.sets
        numbers: Any = {"epoch": epoch, "train": None, "val": None, "test": None}
        logits: dict[str, Tensor] = {}
        for name, images in (("train", sets.train), ("val", sets.val), ("test", sets.test)):
            if images is None:
                continue
            measured = self._measure(model, images, request.spec)
            if not bool(measured.logits.isfinite().all()):
                raise Diverged(f"{request.label}: the outputs on the {name} set are not finite after epoch {epoch}")
            if measured.accuracy == measured.accuracy:  # false for NaN, which means that the set has no labels
                numbers[name] = measured.numbers()
            if name != "train":
                logits |= {name: measured.logits, f"{name}_labels": measured.labels}
        return numbers, logits

    def _files(self, request: Request, files: dict[str, bytes], logits: dict[str, Tensor]) -> dict[str, bytes]:
        saved = safetensors.torch.save({k: v.contiguous() for k, v in logits.items()})
        return {"spec.json": request.spec.json().encode(), **files} | ({"logits.safetensors": saved} if logits else {})

    def _result(self, request: Request) -> ResultJson:
        """Return the entries of every result, however the training ended."""
        spec = request.spec
        return {
            "fingerprint": spec.fingerprint,
            "role": request.role,
            "status": "done",
            "reason": None,
            "seed": spec.seed,
            "dataset": request.dataset,
            "data": spec.data["digest"],
            "model": request.model,
            "classes": list(request.sets.classes),
            "protocol": spec.recipe.get("protocol", "heldout"),
            "select": spec.recipe.get("select", "accuracy"),
            "ema_decay": spec.recipe.get("ema_decay"),
            "parameters": 0,
            "bytes": 0,
            "epochs": 0,
            "selected": None,
            "last": None,
            "best_test": None,
            "seconds": 0.0,
            "images_per_second": 0.0,
            "train_images": len(request.sets.train),
            "formula": None,
            "teachers": list(spec.teachers),
            "loss": request.notes.get("loss"),
            "T": request.notes.get("T"),
            "alpha": request.notes.get("alpha"),
            "precision": spec.precision,
            "compiled": spec.compiled,
            "device": devices.describe(self.device),
            "threads": torch.get_num_threads(),
            "ranks": self.settings.ranks.count,
            "versions": {"kdrun": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self.settings.command,
        }


def in_words(result: ResultJson) -> str:
    """Return how a finished training ended: `val 99.31, test at that epoch 99.17, epoch 29 of 40, 3.4 s`."""
    selected = result["selected"]
    assert selected is not None, "it is finished"
    parts = selected["train"], selected["val"], selected["test"]
    train, val, test = (None if part is None else f"{100 * part['accuracy']:.2f}" for part in parts)
    if test is None:
        return f"{result['formula']}: train {train}" + (f", val {val}" if val else "")
    return ", ".join(
        [
            *([f"val {val}"] if val else []),
            f"test at that epoch {test}" if val and result["epochs"] else f"test {test}",
            f"epoch {selected['epoch']} of {result['epochs']}" if result["epochs"] else "weights from a file",
            *([console.seconds(result["seconds"])] if result["seconds"] else []),
        ]
    )


def _training_result(request: Request, learner: Learner) -> ResultJson:
    """Return the entries of a result that come from the training."""
    history = learner.progress.history
    seconds = sum(row["seconds"] for row in history)
    images = len(request.sets.train) * len(history)
    return {
        "parameters": sum(p.numel() for p in learner.model.parameters()),
        "epochs": len(history),
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 1) if seconds else 0.0,
        "formula": learner.objective.formula(),
    }


def _weights(state: dict[str, Tensor], result: ResultJson) -> dict[str, bytes]:
    content = _safetensors(state)
    result["bytes"] = len(content)
    return {"model.safetensors": content}


def _safetensors(state: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in state.items()})


def history_csv(rows: Sequence[dict[str, float]]) -> bytes:
    """Return the history as CSV, one row per epoch."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue().encode()
