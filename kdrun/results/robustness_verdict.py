"""What paired differences say about robustness, in words: more, less, not shown, and what clean accuracy explains."""

from __future__ import annotations

from kdrun.results import statistics
from kdrun.results.statistics import Paired, interval


def judgement(
    what: str, difference: Paired | None, clean: Paired | None, drop: Paired | None, gone: str = ""
) -> list[str]:
    """Say whether the student is more robust, and whether that is more than its clean accuracy explains.

    `difference` is that of the accuracy on changed images, `clean` that on the same images as they are, and `drop`
    that of what is lost between them. A clear answer needs p < 0.05 and an interval without 0 from at least 6 pairs
    with no training `gone`; with less, an interval without 0 is indicative at most.
    """
    if difference is None or clean is None or drop is None:
        gone = f" ({gone})" if gone else ""
        return [f"Robustness to {what} not shown: no pair of baseline and student was measured{gone}."]
    points = f"{100 * difference.mean:+.2f} points of mean accuracy over the baseline"
    if difference.n == 1:
        return [f"Robustness to {what} not shown: {points}; one seed says nothing about training noise."]
    sure = _shown(difference, gone)
    word = f"{'more' if difference.mean > 0 else 'less'} robust to {what}"
    word = (f"Robustness to {what} not shown", f"Indicative, {word}", word.capitalize())[sure]
    first = f"{word}: {points} ({_numbers(difference)}{f', {gone}' if gone else ''})"
    if difference.n < statistics.ENOUGH_SEEDS:
        first += f"; {difference.n} seeds cannot reach p < 0.05: train with seeds={statistics.ENOUGH_SEEDS} or more"
    lost_more = drop.mean > 0
    second = (
        f"On the same images as they are the difference is {100 * clean.mean:+.2f} points; from these to the changed "
        f"ones the student loses {100 * abs(drop.mean):.2f} points {'more' if lost_more else 'less'} than the baseline"
    )
    surely = _shown(drop, gone)
    second += f"{(', not shown', ', indicative', '')[surely]} ({_numbers(drop)})"
    if sure:
        alike = lost_more == (difference.mean < 0)
        explains = "may explain it" if not surely else "does not explain it alone" if alike else "explains it"
        second += f", so clean accuracy {explains}"
    return [f"{first}.", f"{second}."]


def _shown(difference: Paired, gone: str) -> int:
    """Say how sure a difference is: 0 not shown, 1 indicative, 2 shown."""
    low, high, p = difference.low, difference.high, difference.p
    apart = (low is None and abs(difference.mean) > 1e-12) or (low or 0) > 0 or (high or 0) < 0
    if not apart or p is None:
        return 0
    if difference.n < statistics.ENOUGH_SEEDS:
        return 0 if low is None else 1
    return 0 if p >= statistics.LEVEL else 1 if gone else 2


def _numbers(difference: Paired) -> str:
    spread = "all differences equal" if difference.low is None else f"95% {interval(difference.low, difference.high)}"
    return f"{spread}, p {statistics.p_value(difference.p or 1.0)}, n = {difference.n}"
