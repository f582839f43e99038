"""The tables of a command: which teachers' logits are looked up, where they are stored, and which are saved to disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from kdrun import losses
from kdrun.artifact import ANSWERS
from kdrun.data.answers import Answers
from kdrun.data.batches import Batches
from kdrun.data.sets import FileSet, ImageSet
from kdrun.spec import Spec, canonical
from kdrun.training.bank import Bank
from kdrun.training.pace import Pace
from kdrun.training.request import Request
from kdrun.training.rounding import Rounding
from kdrun.training.settings import Settings
from kdrun.training.table import WORTH, Place, Table, expected_share, place_for

log = logging.getLogger(__name__)


class Tables:
    """The tables of all trainings of a command, which other seeds and other cells of a sweep reuse.

    With augment.views=K each table also has a bank, a file from which other commands reuse it.
    """

    def __init__(self, settings: Settings, pace: Pace) -> None:
        self.settings, self.pace, self.store = settings, pace, settings.store
        self.tables = dict[str, Table]()
        self.banks = dict[str, Bank]()  # keyed like their tables
        self.logged = set[str]()

    def of(self, requests: Sequence[Request], batches: Batches) -> list[Table]:
        """Return a table of logits per teacher, or [] if logits are computed at every step; log which and why."""
        taught = [r for r in requests if r.spec.teachers]
        if not (self.settings.cache_logits and taught):
            return []
        spec, forms, images = taught[0].spec, batches.augmentation.form_count, len(batches.images)
        what = [spec.data, spec.precision, spec.compiled, spec.recipe["batch_size"], spec.bank]
        keys = [canonical([fingerprint, *what]) for fingerprint in spec.teachers]
        place = self._place(taught, keys, batches)
        reason = place if isinstance(place, str) else None
        two_views = reason is None and any(r.strong is not None for r in taught)
        also = "; those of the strong view are computed at every step" if two_views else ""
        if (line := f"{reason}{also}") not in self.logged:
            self.logged.add(line)
            views = f"{forms} view{'s'[: forms != 1]} of {images:,} images"
            log.info("teacher logits %s", f"not cached: {reason}" if reason else f"cached {place} ({views}){also}")
        if isinstance(place, str) or forms is None:
            return []
        for key in keys:
            if key not in self.tables:
                self.tables[key] = Table(forms, images, place, Rounding.of_spec(spec.bank))
                if key in self.banks:
                    self.banks[key].fill(self.tables[key])
        return [self.tables[key] for key in keys]

    def answered(self, fingerprints: Sequence[str], spec: Spec, images: ImageSet | FileSet) -> list[Table]:
        """Return complete tables for teachers given as answers, with a row for each image of a training."""
        ranks, device, tables = self.settings.ranks, self.settings.device, []
        for fingerprint in fingerprints:
            key = canonical([fingerprint, spec.data])
            if key not in self.tables:
                known = self._answers(fingerprint, images).to(device) if ranks.leads else None
                shape = ranks.broadcast(None if known is None else tuple(known.shape))
                logits = torch.empty(shape, device=device) if known is None else known
                ranks.broadcast_tensors(logits)
                place = place_for(4 * logits.numel(), device, float("inf"), self.store.root)
                self.tables[key] = Table.whole(logits, Place(logits.device) if isinstance(place, str) else place)
            tables.append(self.tables[key])
        return tables

    def _answers(self, fingerprint: str, images: ImageSet | FileSet) -> Tensor:
        """Return the logits (N, C) for the images of a training from a file of answers in the store."""
        artifact = self.store.find(fingerprint)
        assert artifact is not None, "it was there just now"
        answers = Answers.stored(artifact.folder / ANSWERS)
        rows = answers.places(images)
        assert bool((rows >= 0).all()), "this was checked"
        return answers.logits[rows]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Save the teachers' logits to disk at the end of a training, or when it is interrupted."""
        try:
            yield
        finally:
            for key in self.banks.keys() & self.tables.keys():
                self.banks[key].keep(self.tables[key])

    def _place(self, taught: Sequence[Request], keys: Sequence[str], batches: Batches) -> Place | str:
        """Return where to store the tables, or the reason for having none, as the end of a sentence."""
        spec, forms, images = taught[0].spec, batches.augmentation.form_count, len(batches.images)
        classes, banked = len(taught[0].sets.classes), batches.augmentation.views is not None
        if not all(losses.build(r.spec.objective).logits_only for r in taught):
            return "a loss compares more than logits"
        if batches.ranks > 1:
            return "several processes each see a share of the images"
        if forms is None:
            return "every epoch shows new views of the images; augment.views=K repeats K of them"
        if all(key in self.tables for key in keys):
            return self.tables[keys[0]].place
        if not banked and expected_share(forms, self._epochs_of(taught)) > WORTH:
            return f"the training is too short to show many of the {forms} views of an image twice"
        for key, fingerprint in zip(keys, spec.teachers, strict=True):
            if banked and key not in self.banks and (artifact := self.store.find(fingerprint)) is not None:
                self.banks[key] = Bank(self.store, artifact, spec, forms, images)
        size = Rounding.of_spec(spec.bank).bytes(classes) * forms * images * len(keys)
        there = all(key in self.banks and self.banks[key].complete for key in keys)
        return place_for(size, self.settings.device, 1e9 * self.settings.table_gb, self.store.root, there=there)

    def _epochs_of(self, taught: Sequence[Request]) -> int:
        """Return the number of epochs in which these trainings, and waiting ones of other seeds, query the teachers."""
        spec = taught[0].spec
        epochs = {spec.seed: max(int(r.spec.recipe["epochs"]) for r in taught)}
        for other in self.pace.expected():
            if (other.spec.teachers, other.spec.data) == (spec.teachers, spec.data):
                epochs.setdefault(other.spec.seed, int(other.spec.recipe["epochs"]))
        return sum(epochs.values())
