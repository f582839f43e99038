"""What a student minimises, from the configuration: its terms, their weights, and the teachers of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kdrun import checks, losses
from kdrun.command.preflight import losses as losses_of


def objective(values: Mapping[str, Any], several: Mapping[str, float]) -> dict[str, Any]:
    """Return the terms with their weights; `several` are the teachers' names and weights, if there are several.

    The weight of the hard term is loss.ce.weight if that is set. Otherwise it is 1 - alpha if alpha weighs every
    chosen loss, the loss's `hard_weight` if a single loss is chosen and has one, and 1 in all other cases. Without
    labels it is 0.
    """
    terms = {name: dict(node) for name, node in values["loss"].items()}
    weight = terms.pop("ce")["weight"]
    hard_weights = [node.pop("hard_weight") for node in terms.values() if "hard_weight" in node]
    by_alpha = [node for node in terms.values() if node.pop("weighed_by", None) and node.get("weight") is None]
    for node in by_alpha:
        node["weight"] = values["alpha"]
    if weight is None and len(by_alpha) == len(terms):
        weight = 1 - values["alpha"]
    elif weight is None:
        weight = hard_weights[0] if len(hard_weights) == len(terms) == 1 else 1
    if not values["transfer"]["labels"]:
        weight = 0.0  # without labels there is no hard term
    if len(several) > 1:
        terms = _for_several(terms, several, together=values["combine"] == "average")
    return losses.identified(without_zeros(hard(values["recipe"], round(float(weight), 12)) | terms))


def _for_several(terms: Mapping[str, Any], several: Mapping[str, float], *, together: bool) -> dict[str, Any]:
    """Return the terms for several teachers: one term for all of them if it can take them, else a term for each.

    Either way the teachers' weights are divided by their sum, so that a loss weighs the same as with one teacher.
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


def has_peers(values: Mapping[str, Any]) -> bool:
    """Return whether the chosen losses are for students that teach each other."""
    return any(losses.find(node["use"]).peers for node in values["loss"].values() if "use" in node)


def hard(recipe: Mapping[str, Any], weight: float = 1.0) -> dict[str, Any]:
    """Return the labels' cross-entropy, the whole loss of teachers and baselines."""
    balance = {"class_weights": recipe["class_weights"]} if recipe.get("class_weights") else {}
    return {"ce": {"use": "ce.CE", "weight": weight, "label_smoothing": recipe["label_smoothing"], **balance}}


def named(terms: Mapping[str, Any], cfg: DictConfig) -> dict[str, Any]:
    """Return an objective's loss by name for records, with T and alpha if the loss reads them.

    Terms of one loss for several teachers share its name. Adopted weights have no objective: return an empty dict.
    """
    if not terms:
        return {}
    chosen = {
        name: node for name, node in losses_of(cfg, resolve=False).items() if any(_is(term, name) for term in terms)
    }
    read = {key: cfg[key] for key in ("T", "alpha") if any(checks.reads(node, key) for node in chosen.values())}
    return {"loss": "+".join(chosen) or "ce", **read}


def _is(term: str, loss: str) -> bool:
    """Return whether a term is that of a loss, or of that loss for one of several teachers (see _for_several)."""
    return term == loss or term.startswith(f"{loss}_")


def without_zeros(terms: dict[str, Any]) -> dict[str, Any]:
    """Leave out terms of weight 0: with alpha=0 the student has the baseline's spec, and is not trained twice."""
    return {name: node for name, node in terms.items() if node.get("weight") != 0} or terms


def plain(node: Any) -> dict[str, Any]:
    """Return a configuration node as plain values, interpolations resolved."""
    values = OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
