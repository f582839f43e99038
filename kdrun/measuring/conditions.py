"""Under what networks are asked for robustness: families of one kind, each at several strengths. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from kdrun.config import Robustness

# A family's number is raised whenever a change of ours changes what it does; of those not named here it is 1.
NUMERICS = {"pixelation": 2, "occlusion": 2}  # 2: every severity changes an image more than the one below
CLEAN, ATTACKS = "clean", ("fgsm", "pgd")


def families(how: Robustness) -> list[str]:
    """List what is measured one after the other: the images as they are, each corruption, each attack."""
    attacks = [name for name in ATTACKS if getattr(how, name)]
    return [*([CLEAN, *how.corruptions] if how.corruptions else []), *attacks]


def levels(family: str, how: Robustness) -> list[str]:
    """Return the strengths of a family as its results name them: severities, or ε; 0 is the image as it is."""
    if family == CLEAN:
        return ["0"]
    if family in ATTACKS:  # which may be asked about fewer images: what is right of these before is counted too
        return ["0", *(f"{epsilon:g}" for epsilon in getattr(how, family))]
    return [str(severity) for severity in how.severities]


def passes(family: str, how: Robustness) -> int:
    """Count the passes over an image and a network that a family takes; a gradient counts as three."""
    strengths = levels(family, how)
    if family == "pgd":
        return 1 + (len(strengths) - 1) * (3 * how.pgd_steps + 1)
    return 3 + len(strengths) if family == "fgsm" else len(strengths)


def settings(how: Robustness, data: str | None) -> dict[str, Any]:
    """Return all that determines a network's numbers; the device does not, but for the last digit of a float.

    `data` is the digest of the data set whose test images are asked about.
    """
    return {**vars(how), "numerics": numerics(how), "data": data}


def numerics(how: Robustness) -> int:
    """Return the highest number of the families asked about: what was measured before it was raised is not mixed in."""
    return max((NUMERICS.get(family, 1) for family in families(how)), default=1)


def recorded(known: Mapping[str, Any]) -> Robustness | None:
    """Give what was asked by recorded settings; None where another version asked, in other words or other numerics."""
    values = {key: value for key, value in known.items() if key not in ("numerics", "data")}
    if set(values) != {field.name for field in fields(Robustness)}:
        return None
    how = Robustness(**values)
    return how if known.get("numerics", numerics(how)) == numerics(how) else None


def missing(accuracy: Mapping[str, Mapping[str, float]], how: Robustness) -> list[str]:
    """List the families at one of whose strengths a network has no number yet."""
    return [family for family in families(how) if not set(levels(family, how)) <= set(accuracy.get(family, ()))]
