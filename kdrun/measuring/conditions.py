"""The conditions of robustness: families of corruptions and attacks, each at several strengths. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from kdrun.config import Robustness

# The version of a family's results: raised whenever a change of its code changes them; 1 if it is not listed.
NUMERICS = {"pixelation": 2, "occlusion": 2}  # 2: every severity changes an image more than the one below
CLEAN, ATTACKS = "clean", ("fgsm", "pgd")


def families(how: Robustness) -> list[str]:
    """Return the families in order: the unchanged images, each corruption, each attack."""
    attacks = [name for name in ATTACKS if getattr(how, name)]
    return [*([CLEAN, *how.corruptions] if how.corruptions else []), *attacks]


def levels(family: str, how: Robustness) -> list[str]:
    """Return the strengths of a family as results name them: severities, or ε; 0 is the unchanged image."""
    if family == CLEAN:
        return ["0"]
    if family in ATTACKS:  # attacks may use fewer images: clean accuracy is measured on these too
        return ["0", *(f"{epsilon:g}" for epsilon in getattr(how, family))]
    return [str(severity) for severity in how.severities]


def passes(family: str, how: Robustness) -> int:
    """Return a family's number of forward passes per image and network; a gradient counts as three."""
    strengths = levels(family, how)
    if family == "pgd":
        return 1 + (len(strengths) - 1) * (3 * how.pgd_steps + 1)
    return 3 + len(strengths) if family == "fgsm" else len(strengths)


def settings(how: Robustness, data: str | None) -> dict[str, Any]:
    """Return all settings that determine a network's numbers; a device changes only the last digit of a float.

    `data` is the digest of the data set that the test images are from.
    """
    return {**vars(how), "numerics": numerics(how), "data": data}


def numerics(how: Robustness) -> int:
    """Return the families' highest version in NUMERICS; measurements of another version are not mixed with these."""
    return max((NUMERICS.get(family, 1) for family in families(how)), default=1)


def recorded(known: Mapping[str, Any]) -> Robustness | None:
    """Return recorded settings as Robustness; None if a version with other keys or other numerics recorded them."""
    values = {key: value for key, value in known.items() if key not in ("numerics", "data")}
    if set(values) != {field.name for field in fields(Robustness)}:
        return None
    how = Robustness(**values)
    return how if known.get("numerics", numerics(how)) == numerics(how) else None


def missing(accuracy: Mapping[str, Mapping[str, float]], how: Robustness) -> list[str]:
    """Return the families in which a network's accuracy at one or more strengths is missing."""
    return [family for family in families(how) if not set(levels(family, how)) <= set(accuracy.get(family, ()))]
