"""Under what networks are asked for robustness: families of one kind, each at several strengths. No torch."""

from __future__ import annotations

from typing import Any

from kdrun.config import Robustness

NUMERICS = 1  # raised whenever a change of ours changes what a corruption or an attack does
CLEAN, ATTACKS = "clean", ("fgsm", "pgd")


def families(how: Robustness) -> list[str]:
    """List what is measured one after the other: the images as they are, each corruption, each attack."""
    attacks = [name for name in ATTACKS if getattr(how, name)]
    return [*([CLEAN, *how.corruptions] if how.corruptions else []), *attacks]


def levels(family: str, how: Robustness) -> list[str]:
    """Give the strengths of a family as its results name them: severities, or ε; 0 is the image as it is."""
    if family == CLEAN:
        return ["0"]
    if family in ATTACKS:  # which may be asked about fewer images: what is right of these before is counted too
        return ["0", *(f"{epsilon:g}" for epsilon in getattr(how, family))]
    return [str(severity) for severity in how.severities]


def passes(family: str, how: Robustness) -> int:
    """Count the passes over an image and a network that a family takes; a gradient counts as three."""
    found = levels(family, how)
    if family == "pgd":
        return 1 + (len(found) - 1) * (3 * how.pgd_steps + 1)
    return 3 + len(found) if family == "fgsm" else len(found)


def settings(how: Robustness) -> dict[str, Any]:
    """Give all that determines a network's numbers; the device does not, but for the last digit of a float."""
    return {**vars(how), "numerics": NUMERICS}
