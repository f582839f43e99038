"""From a composed configuration to the trainings it wants: data, specs, requests. Reads Hydra configs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kdrun import data, losses, models
from kdrun.data.sets import Dataset
from kdrun.data.transfer import Transfer
from kdrun.models.weights import is_file_name
from kdrun.preflight import uses_alpha
from kdrun.results.collect import find_artifact
from kdrun.spec import Spec
from kdrun.store import Artifact, Store
from kdrun.training import devices
from kdrun.training.obtain import Workshop
from kdrun.training.request import Request, Sets
from kdrun.training.stop import StopFlag

log = logging.getLogger(__name__)


@dataclass
class Wanted:
    """Makes the requests of one composed configuration."""

    cfg: DictConfig
    dataset: Dataset
    precision: str
    val_fraction: float

    @classmethod
    def read(cls, cfg: DictConfig, device: torch.device) -> Wanted:
        """Load the data set. Raises ValueError for whatever is wrong with it."""
        node = plain(cfg.dataset)
        if _paper(cfg):
            node["val_fraction"] = 0.0
        dataset = data.load(node.pop("use"), name=_chosen("dataset"), **node)
        return cls(cfg, dataset, devices.resolve_precision(cfg.precision, device), node["val_fraction"])

    def teacher(self) -> Request:
        """Ask for the teacher: everything that is not held out, labels alone, its own recipe."""
        cfg = self.cfg.teacher
        recipe = plain(cfg.recipe)
        model, weights = self.model("teacher")
        recipe_spec: dict[str, Any] = recipe
        if (file := _file(cfg["from"])) is not None:
            # its content, not how it came about, is what is known of a file
            recipe_spec = {"adopted": models.digest(model["use"], {**model["arguments"], "weights": str(file)})}
            weights = str(file)
        spec = Spec(
            data=self.data(Transfer()),
            model=model,
            objective=_hard(recipe) if recipe_spec is recipe else {},
            recipe=recipe_spec,
            seed=int(cfg.seed),
            precision=self.precision,
        )
        sets = Sets(self.dataset.train, self.dataset.val, self.dataset.test, self.dataset.classes)
        return self._request("teacher", spec, sets, weights)

    def baseline(self, seed: int) -> Request:
        """Ask for the student's network alone, on the transfer set."""
        return self._small("baseline", seed, _hard(plain(self.cfg.recipe)), ())

    def student(self, seed: int, teacher: Artifact | Request) -> Request:
        """Ask for the student: the same network, seed and batches as the baseline, and the teacher's help."""
        fingerprint = teacher.spec.fingerprint
        objective = _without_zeros(self.objective())
        heard = (fingerprint,) if losses.build(objective).needs_teacher else ()
        return self._small("student", seed, objective, heard)

    def objective(self) -> dict[str, Any]:
        """Resolve the terms with their weights; the hard term is 1 - alpha where alpha weighs every chosen loss."""
        terms = plain(self.cfg.loss)
        hard = terms.pop("ce")
        weight = hard["weight"]
        if weight is None:
            weight = 1 - self.cfg.alpha if uses_alpha(self.cfg) else 1.0
        if not self.cfg.transfer.labels:
            weight = 0.0  # without labels there is no hard term
        ce = _hard(plain(self.cfg.recipe), round(float(weight), 12))
        return ce | terms

    def _small(self, role: str, seed: int, objective: dict[str, Any], teachers: tuple[str, ...]) -> Request:
        transfer = self.transfer()
        if role == "baseline":  # it could learn nothing from images without labels
            transfer = replace(transfer, extra=None)
        model, weights = self.model("student")
        spec = Spec(
            data=self.data(transfer),
            model=model,
            objective=objective,
            recipe=plain(self.cfg.recipe),
            seed=seed,
            precision=self.precision,
            teachers=teachers,
        )
        train = transfer.apply(self.dataset)
        sets = Sets(train, self.dataset.val, self.dataset.test, self.dataset.classes)
        notes = {"T": self.cfg.T, "alpha": self.cfg.alpha} if role == "student" else {}
        return self._request(role, spec, sets, weights, notes)

    def _request(
        self, role: str, spec: Spec, sets: Sets, weights: str | None, notes: dict[str, Any] | None = None
    ) -> Request:
        group = "teacher" if role == "teacher" else "student"
        return Request(role, self.dataset.name, _chosen(group), spec, sets, notes or {}, weights)

    def transfer(self) -> Transfer:
        """Give the transfer set's settings."""
        return Transfer(**plain(self.cfg.transfer))

    def data(self, transfer: Transfer) -> dict[str, Any]:
        """Describe the images of a training by content: hashes, split, transfer set, what is done to them."""
        d = self.dataset
        return {
            "digest": d.digest,
            "val_fraction": self.val_fraction,
            "split_seed": self.cfg.dataset.split_seed if self.val_fraction else None,
            "transfer": transfer.identity(d),
            "crop_padding": d.augment.crop_padding,
            "flip": d.augment.flip,
            "mean": [float(v) for v in d.mean],
            "std": [float(v) for v in d.std],
        }

    def model(self, group: str) -> tuple[dict[str, Any], str | None]:
        """Describe a network, and give the file of weights it starts from, if any."""
        node = plain(self.cfg[group])
        for own in ("recipe", "from", "seed"):
            node.pop(own, None)
        use = node.pop("use")
        digest = models.digest(use, node)
        weights = node.pop("weights", None)
        if weights is not None and not is_file_name(weights):
            node["weights"], weights = weights, None
        d = self.dataset
        described = {
            "use": use,
            "arguments": node,
            "num_classes": len(d.classes),
            "in_channels": d.in_channels,
            "image_size": list(d.image_size),
            "digest": digest,
        }
        return described, weights

    def pinned(self, store: Store) -> Artifact | None:
        """Give the teacher of the run or artifact that teacher.from names; a file of weights is a request instead."""
        source = self.cfg.teacher["from"]
        if source is None or _file(source) is not None:
            return None
        artifact = store.find(find_artifact(str(source), "teacher", Path(self.cfg.outputs)))
        if artifact is None:
            raise ValueError(f"teacher.from={source}: its teacher is no longer in {store.root}; kdrun runs lists all")
        self._refuse_misfit(artifact)
        return artifact

    def _refuse_misfit(self, artifact: Artifact) -> None:
        """Raise ValueError where a pinned teacher knows other classes, or sees images otherwise, than this data set."""
        source, name = f"teacher.from={self.cfg.teacher['from']}", f"dataset={self.dataset.name}"
        theirs, ours = list(artifact.result["classes"]), list(self.dataset.classes)
        if theirs != ours:
            first = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), None)
            where = "" if first is None else f"; class {first} is {theirs[first]!r} there and {ours[first]!r} here"
            raise ValueError(
                f"{source}: it knows {len(theirs)} classes and {name} has {len(ours)}{where}; "
                "choose a teacher of the same classes in the same order"
            )
        model, _ = self.model("teacher")
        seen = {**{k: artifact.spec.model[k] for k in ("in_channels", "image_size")}, **artifact.spec.data}
        here = {**{k: model[k] for k in ("in_channels", "image_size")}, **self.data(Transfer())}
        for key in ("in_channels", "image_size", "mean", "std"):
            if seen[key] != here[key]:
                raise ValueError(
                    f"{source}: it was trained on images of {key} {seen[key]}, and {name} has {here[key]}; "
                    "train the teacher on this data set"
                )
        if seen["digest"] != here["digest"]:
            log.warning("%s was trained on other data than %s: see to it that it saw none of its images", source, name)
        elif here["val_fraction"] and any(seen[key] != here[key] for key in ("val_fraction", "split_seed")):
            raise ValueError(
                f"{source}: it was trained with dataset.val_fraction={seen['val_fraction']:g} dataset.split_seed="
                f"{seen['split_seed']}, so it has seen images that are held out here; type the same, or train it anew"
            )


def workshop(cfg: DictConfig, run_command: str, stop: StopFlag) -> Workshop:
    """Open the store below `outputs` on the device that the configuration asks for."""
    device = devices.resolve_device(cfg.device)
    store = Store(Path(cfg.outputs).expanduser() / "store")
    return Workshop(store, device, command=run_command, stop=stop, workers=cfg.workers, force=cfg.force)


def plain(node: Any) -> dict[str, Any]:
    """Give a configuration node as plain values, interpolations resolved."""
    values = OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _file(source: Any) -> Path | None:
    """Give the file that teacher.from names, where it names one."""
    path = None if source is None else Path(str(source)).expanduser()
    return path if path is not None and path.is_file() else None


def _paper(cfg: DictConfig) -> bool:
    """Say whether the papers' protocol was asked for, which holds nothing out.

    Raises ValueError where teacher and student would be held to different ones: with a teacher that saw the
    validation images, nothing chosen on them could be trusted.
    """
    verb = str(HydraConfig.get().job.name)
    small, large = cfg.recipe.protocol, cfg.teacher.recipe.protocol
    if verb == "distill" and small != large and cfg.teacher["from"] is None:
        raise ValueError(
            f"recipe.protocol={small} and teacher.recipe.protocol={large}: must agree; type only the first"
        )
    return bool((large if verb == "train_teacher" else small) == "paper")


def _hard(recipe: dict[str, Any], weight: float = 1.0) -> dict[str, Any]:
    return {"ce": {"use": "ce.CE", "weight": weight, "label_smoothing": recipe["label_smoothing"]}}


def _without_zeros(terms: dict[str, Any]) -> dict[str, Any]:
    """Leave out what weighs nothing: with alpha=0 the student is the baseline, and is found as such."""
    kept = {name: node for name, node in terms.items() if node["weight"]}
    return kept or terms


def _chosen(group: str) -> str:
    return str(HydraConfig.get().runtime.choices[group])
