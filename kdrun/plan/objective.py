"""What a student minimises, from the configuration: its terms, their weights, and which teachers each hears."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kdrun import losses


def objective(cfg: DictConfig, several: Mapping[str, float]) -> dict[str, Any]:
    """Resolve the terms with their weights; `several` teachers, by name with their weights, are shared out.

    The hard term weighs 1 - alpha where alpha weighs every chosen loss, what the paper of a single loss gives
    it where that loss's file says so, and 1 otherwise.
    """
    terms = plain(cfg.loss)
    weight = terms.pop("ce")["weight"]
    stated = [node.pop("hard_weight") for node in terms.values() if "hard_weight" in node]
    by_alpha = [node for node in terms.values() if node.pop("weighed_by", None) and node.get("weight") is None]
    for node in by_alpha:
        node["weight"] = cfg.alpha
    if weight is None:
        weight = 1 - cfg.alpha if len(by_alpha) == len(terms) else stated[0] if len(terms) == len(stated) == 1 else 1
    if not cfg.transfer.labels:
        weight = 0.0  # without labels there is no hard term
    if len(several) > 1:
        terms = _shared_out(terms, several, together=cfg.combine == "average")
    return without_zeros(hard(plain(cfg.recipe), round(float(weight), 12)) | terms)


def _shared_out(terms: Mapping[str, Any], several: Mapping[str, float], *, together: bool) -> dict[str, Any]:
    """Return which term hears which teacher: one term all of them where it can, else a term for each of them.

    Either way the teachers' weights count relative to one another, so that a loss weighs what it weighs with one.
    """
    parts = {name: weight / sum(several.values()) for name, weight in several.items()}
    shared: dict[str, Any] = {}
    for name, node in terms.items():
        cls = losses.find(node["use"])
        if not cls.needs_teacher:
            shared[name] = node
        elif cls.hears_several and (together or cls.peers):
            shared[name] = {**node, "heard": {"teachers": list(range(len(parts))), "weights": list(parts.values())}}
        else:
            for i, (teacher, part) in enumerate(parts.items()):
                heard = {"teachers": [i], "weights": [1.0]}
                shared[f"{name}_{teacher}"] = {**node, "weight": round(node["weight"] * part, 12), "heard": heard}
    return shared


def has_peers(cfg: DictConfig) -> bool:
    """Return whether the chosen losses are for students that teach each other."""
    return any(losses.find(node["use"]).peers for node in plain(cfg.loss).values() if "use" in node)


def hard(recipe: Mapping[str, Any], weight: float = 1.0) -> dict[str, Any]:
    """The labels' cross-entropy: all that teachers and baselines minimise."""
    balance = {"class_weights": recipe["class_weights"]} if recipe.get("class_weights") else {}
    return {"ce": {"use": "ce.CE", "weight": weight, "label_smoothing": recipe["label_smoothing"], **balance}}


def without_zeros(terms: dict[str, Any]) -> dict[str, Any]:
    """Leave out what weighs nothing: with alpha=0 the student is the baseline, and is found as such."""
    kept = {name: node for name, node in terms.items() if node.get("weight") != 0}
    return kept or terms


def plain(node: Any) -> dict[str, Any]:
    """Return a configuration node as plain values, interpolations resolved."""
    values = OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
