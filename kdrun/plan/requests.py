"""From a composed configuration to requests for trainings: load the data, describe networks and objectives.

The module is long because everything that becomes part of a training's identity is assembled here.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from kdrun import augment, data, losses, models
from kdrun.artifact import Artifact
from kdrun.checks import file_and_entry
from kdrun.command import composing, roles
from kdrun.command.invocation import Invocation
from kdrun.command.roles import OWN, Choices, Part
from kdrun.config import BANK, every
from kdrun.data.decoders import Workers
from kdrun.data.download import NotHere
from kdrun.data.sets import Dataset
from kdrun.data.transfer import TransferSet
from kdrun.export.sheet import sheet_of
from kdrun.models.weight_files import is_file_name
from kdrun.plan import answered
from kdrun.plan.fit import refuse_other_classes, refuse_other_images, start_warning
from kdrun.plan.objective import hard, named, objective
from kdrun.results.find import find_artifact
from kdrun.signals import StopFlag
from kdrun.spec import Spec
from kdrun.store import Store
from kdrun.tracking.base import Command, tracking
from kdrun.training import compiled, devices
from kdrun.training.obtain import Obtainer
from kdrun.training.recipe import resolved
from kdrun.training.request import Request, Sets
from kdrun.training.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RequestBuilder:
    """Makes requests for the trainings of one composed configuration, which has one teacher and one student."""

    verb: str
    cfg: DictConfig
    values: Mapping[str, Any]  # the same as plain values, without Hydra's part
    dataset: Dataset
    precision: str
    val_fraction: float
    choices: Choices
    init: int = 0
    warned: set[str] = field(default_factory=set)  # warnings that were logged, so that each appears once

    @classmethod
    def read(
        cls,
        verb: str,
        cfg: DictConfig,
        choices: Choices,
        device: torch.device,
        values: Mapping[str, Any] | None = None,
    ) -> RequestBuilder:
        """Load the data set. Raise ValueError if something is wrong with it, or missing on this machine.

        `values` are those of the configuration, if the caller has converted it: that takes longer than the requests.
        """
        values = composing.resolved(cfg) if values is None else values
        precision = devices.resolve_precision(cfg.precision, device)
        if cfg.compile:
            compiled.check(device)
        settings = dict(values["dataset"])
        if roles.recipe(verb, cfg).protocol == "paper":
            settings["val_fraction"] = 0.0
        try:
            dataset = data.load(settings.pop("use"), name=str(choices["dataset"]), **settings)
        except NotHere as error:
            trial = choices["experiment"] is not None and choices["budget"] != "quick"
            raise NotHere(f"{error}{'; or see the experiment on digits with budget=quick' if trial else ''}") from None
        if settings["val_fraction"] and dataset.val is not None and len(dataset.train) == dataset.stored:
            text = "%s has %s validation images of its own: dataset.val_fraction=%g holds out no others"
            log.info(text, dataset.name, f"{len(dataset.val):,}", settings["val_fraction"])
        if verb == "distill" and (warning := TransferSet(**values["transfer"]).of_held_out(dataset)):
            log.warning("%s", warning)
        return cls(verb, cfg, values, dataset, precision, settings["val_fraction"], choices)

    def for_part(self, group: str, part: Part) -> RequestBuilder:
        """Return a builder with one of several networks in the place of the teacher or the student."""
        values = self.values if part.cfg is self.cfg else composing.resolved(part.cfg)
        return replace(self, cfg=part.cfg, values=values, choices={**self.choices, group: part.model}, init=part.init)

    def teacher(self) -> Request:
        """Request the teacher: trained with its own recipe, on labels alone, on all images that are not held out.

        Weights from a file, and another model's answers, are not trained.
        """
        cfg = self.cfg.teacher
        if roles.answered(self.cfg):
            return answered.teacher(str(cfg.file), self.dataset, self.data(TransferSet(), {}))
        recipe = resolved(self.values["teacher"]["recipe"], len(self.dataset.train))
        model, weights = self.model("teacher")
        recipe_spec: dict[str, Any] = recipe
        if (file := _file(cfg["from"])) is not None:
            model |= self._own_normalisation(file)
            # a file is identified by its content, because how it was trained is unknown
            recipe_spec = {"adopted": models.digest(model["use"], {**model["arguments"], "weights": str(file)})}
            weights = str(file)
        else:
            self._warn(self.without_crops(self.cfg, cfg.augment, "augment@teacher.augment"))
        spec = Spec(
            data=self.data(TransferSet(), self.values["teacher"]["augment"]),
            model=model,
            objective=hard(recipe) if recipe_spec is recipe else {},
            recipe=recipe_spec,
            seed=int(cfg.seed),
            precision=self.precision,
            compiled=bool(self.cfg.compile) and recipe_spec is recipe,
        )
        sets = Sets(self.dataset.train, self.dataset.val, self.dataset.test, self.dataset.classes)
        notes = named(spec.objective, self.cfg)
        return Request("teacher", self.dataset.name, str(self.choices["teacher"]), spec, sets, notes, weights)

    def baseline(self, seed: int) -> Request:
        """Request the student's network trained alone, on the transfer set."""
        return self._student_network("baseline", seed, hard(self.values["recipe"]))

    def student(
        self, seed: int, teachers: Sequence[Spec], *, role: str = "student", init: int | None = None
    ) -> Request:
        """Request the student: the same network, seed and batches as the baseline, and the teachers' outputs."""
        weights = {name: float(node.weight) for name, node in self.cfg.teachers.items()} if len(teachers) > 1 else {}
        terms = objective(self.values, weights)
        fingerprints = [t.fingerprint for t in teachers] if losses.build(terms).needs_teacher else []
        bank = self.bank(terms) if fingerprints else {}
        request = self._student_network(role, seed, terms, fingerprints, init=init, bank=bank)
        if fingerprints and any(t.answered for t in teachers):
            cfg = self.cfg.teacher
            self._warn(answered.check(request, str(cfg.file), self.dataset, fixed=bool(cfg.fixed)))
        return request

    def peers(self, seed: int, others: Sequence[RequestBuilder]) -> Request:
        """Request a student without a teacher, which learns from peers that are trained at the same time."""
        images = len(self.transfer().apply(self.dataset))
        peers = [{"model": o.model("student")[0], "recipe": resolved(o.values["recipe"], images)} for o in others]
        several = {str(i): 1.0 for i in range(len(others))}
        return self._student_network("peer", seed, objective(self.values, several), peers=peers)

    def _student_network(
        self,
        role: str,
        seed: int,
        terms: dict[str, Any],
        teachers: Sequence[str] = (),
        *,
        peers: Sequence[dict[str, Any]] = (),
        init: int | None = None,
        bank: Mapping[str, Any] | None = None,
    ) -> Request:
        transfer = self.transfer()
        if role == "baseline":  # extra images have no labels, so a baseline cannot learn from them
            transfer = replace(transfer, extra=None)
        model, weights = self.model("student", init)
        train = transfer.apply(self.dataset)
        mixes = augment.mixes(self.values["augment"])
        if mixes:
            losses.refuse_mixing(terms)
        if role != "baseline" or self.verb == "train_baseline":
            self._warn(self.without_crops(self.cfg, self.cfg.augment, "augment"))
        # images without a label are mixed only if nothing reads labels
        all_mixed = mixes and bool((train.labels < 0).any()) and not losses.build(terms).needs_labels
        spec = Spec(
            data=self.data(transfer, self.values["augment"], partners="all" if all_mixed else None),
            model=model,
            objective=terms,
            recipe=resolved(self.values["recipe"], len(train)),
            seed=seed,
            precision=self.precision,
            compiled=bool(self.cfg.compile),
            teachers=tuple(teachers),
            peers=tuple(peers),
            bank=bank or {},
        )
        strong = losses.strong_view(terms)
        try:
            augment.strong_of_spec(spec.data, strong, self.dataset.image_size)
        except ValueError as error:
            name = next(name for name, node in terms.items() if "strong" in node)
            raise ValueError(f"loss.{name}.{error}") from None
        sets = Sets(train, self.dataset.val, self.dataset.test, self.dataset.classes)
        notes = named(terms, self.cfg)
        return Request(role, self.dataset.name, str(self.choices["student"]), spec, sets, notes, weights)

    def bank(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that round the teachers' logits in their banks, without those at their neutral default.

        Raise ValueError if a term cannot learn from such logits, or if there are too few classes.
        """
        rounded = {key: value for key, value in self.values["teacher"]["bank"].items() if value != BANK[key]}
        if not rounded:
            return {}
        classes, k = len(self.dataset.classes), rounded.get("top_k")
        if k is not None and k >= classes:
            raise ValueError(
                f"teacher.bank.top_k={k}: keeps all logits of {self.dataset.name}, which has {classes} classes; type a "
                "smaller number, or leave it out"
            )
        losses.refuse_rounding(terms, top_k=k is not None)
        return rounded

    def transfer(self) -> TransferSet:
        """Return the transfer set's settings."""
        return TransferSet(**self.values["transfer"])

    def data(
        self, transfer: TransferSet, augmentation: Mapping[str, Any], *, partners: str | None = None
    ) -> dict[str, Any]:
        """Return the description of a training's images: content, split, transfer set, augmentation, normalisation.

        Raise ValueError if a setting of the augmentation is out of range.
        """
        d = self.dataset
        augment.build(augmentation, mean=d.mean, size=d.image_size)
        return {
            "digest": d.digest,
            "val_fraction": self.val_fraction,
            "split_seed": self.cfg.dataset.split_seed if self.val_fraction else None,
            "transfer": transfer.identity(d),
            **augment.described(augmentation, partners=partners),
            "mean": [float(v) for v in d.mean],
            "std": [float(v) for v in d.std],
        }

    def model(self, group: str, init: int | None = None) -> tuple[dict[str, Any], str | None]:
        """Return the description of a network, and the file of weights that it starts from, if any."""
        draw = 0 if group == "teacher" else self.init if init is None else init
        node = {key: value for key, value in self.values[group].items() if key not in OWN}
        use, node = models.spelled_out(node.pop("use"), node)
        try:
            digest = models.digest(use, node)
        except ValueError as error:  # says which file; two networks may have one
            raise ValueError(re.sub("^weights: ", f"{group}.weights={node.get('weights')}: ", str(error))) from None
        weights = node.pop("weights", None)
        if weights is not None and not is_file_name(weights):
            node["weights"], weights = weights, None
        d = self.dataset
        warning = "" if weights is None else start_warning(f"{group}.weights", weights, d)
        self._warn(warning)
        described = {
            "use": use,
            "arguments": node,
            "num_classes": len(d.classes),
            "in_channels": d.in_channels,
            "image_size": list(d.image_size),
            "digest": digest,
        }
        return described | ({"init": draw} if draw else {}), weights

    @staticmethod
    def without_crops(cfg: DictConfig, augmentation: DictConfig, key: str) -> str:
        """Return a warning if an augmentation drops the data set's usual crops and mirroring; empty otherwise."""
        usual, chosen = cfg.dataset, [name for name in map(str, augmentation) if name not in ("views", "seed")]
        if not chosen or {"crop_flip", "resized_crop"} & set(chosen) or not (usual.crop_padding or usual.flip):
            return ""
        listed = ",".join(chosen)
        return (
            f"{key}={listed} replaces crop_flip, the data set's crops and mirroring; "
            f"'{key}=[crop_flip,{listed}]' has both"
        )

    def _warn(self, warning: str) -> None:
        """Log a warning unless it is empty or was logged before."""
        if warning and warning not in self.warned:
            log.warning("%s", warning)
            self.warned.add(warning)

    def pinned(self, store: Store) -> Artifact | None:
        """Return the teacher of the run or artifact that teacher.from names; None for a file or without teacher.from.

        Raise ValueError if it is not in this command's store or does not fit the data set.
        """
        source = self.cfg.teacher["from"]
        if source is None or _file(source) is not None:
            return None
        fingerprint, place = find_artifact(str(source), "teacher", Path(self.cfg.outputs))
        artifact = Store(place).find(fingerprint)
        if artifact is None:
            raise ValueError(f"teacher.from={source}: its teacher is no longer in {place}; kdrun runs lists all runs")
        if place.resolve() != store.root.resolve():  # tables read all networks of a run from one store
            file = artifact.folder / "model.safetensors"
            raise ValueError(
                f"teacher.from={source}: is outside outputs={store.root.parent}; type outputs={place.parent}, or "
                f"use its weights: teacher.from={file}"
            )
        classes, spec = artifact.result["classes"], artifact.spec
        if spec.answered:
            raise ValueError(
                f"teacher.from={source}: its teacher is a file of answers; type teacher=answers and the file"
            )
        self._refuse_misfit(classes, spec.model, spec.data)
        if own := self._other_normalisation(spec.data):
            raise ValueError(
                f"teacher.from={source}: it was trained on images of mean {own[0]} and std {own[1]}, and "
                f"dataset={self.dataset.name} has others; use its weights, which keep their own mean and std: "
                f"teacher={artifact.result['model']} teacher.from={artifact.folder / 'model.safetensors'}"
            )
        return artifact

    def _own_normalisation(self, file: Path) -> dict[str, Any]:
        """Return the entry for a model's description if its weights file was trained with another normalisation.

        Raise ValueError if kdrun wrote the file and its classes or images are not those of this data set.
        """
        if (sheet := sheet_of(file)) is None:
            return {}
        model, data = sheet.spec["model"], sheet.spec["data"]
        self._refuse_misfit(sheet.classes, model, data)
        own = model.get("normalisation") or self._other_normalisation(data)
        if own:
            log.info("%s: its normalisation differs from that of %s; it keeps its own", file, self.dataset.name)
        return {"normalisation": own} if own else {}

    def _other_normalisation(self, data: Mapping[str, Any]) -> list[list[float]]:
        """Return mean and std of other data; nothing if they equal those of this data set."""
        here = self.data(TransferSet(), self.values["teacher"]["augment"])
        return [data["mean"], data["std"]] if any(data[key] != here[key] for key in ("mean", "std")) else []

    def _refuse_misfit(self, classes: Sequence[str], model: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Raise ValueError if a teacher's classes or images do not fit this data set."""
        source = f"teacher.from={self.cfg.teacher['from']}"
        ours, _ = self.model("teacher")
        keys = ("in_channels", "image_size")
        own = self.data(TransferSet(), self.values["teacher"]["augment"])
        seen, here = {**{k: model[k] for k in keys}, **data}, {**{k: ours[k] for k in keys}, **own}
        refuse_other_classes(source, classes, self.dataset)
        refuse_other_images(source, seen, here, self.dataset)


def new_obtainer(invocation: Invocation, cfg: DictConfig, folder: Path, stop: StopFlag) -> Obtainer:
    """Return an obtainer for the configuration's store and device; trackers write into `folder`."""
    device = devices.resolve_device(cfg.device)
    outputs = Path(cfg.outputs).expanduser()
    command = Command(invocation.verb.replace("_", " "), invocation.command, folder, outputs)
    store, tracker = Store(outputs / "store"), tracking(cfg.tracker, command)
    return Obtainer(
        Settings(
            store,
            device,
            stop,
            invocation.command,
            Workers(cfg.workers, cfg.data_timeout),
            every(cfg.checkpoint_every),
            anew=invocation.token if cfg.force else "",
            table_gb=cfg.teacher.table_gb,
            tracking=tracker,
        )
    )


def _file(source: Any) -> Path | None:
    """Return the file that teacher.from names, with any :ENTRY kept; None if it names a run."""
    path = None if source is None else Path(os.path.expanduser(str(source)))
    return path if path is not None and file_and_entry(path) is not None else None
