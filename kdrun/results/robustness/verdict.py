"""The verdict on robustness in words, and whether clean accuracy explains the difference."""

from __future__ import annotations

from kdrun.results import evidence, statistics
from kdrun.results.evidence import Evidence, interval, judge
from kdrun.results.statistics import Paired


def judgement(
    what: str, difference: Paired | None, clean: Paired | None, drop: Paired | None, lost_seeds: str = ""
) -> list[str]:
    """Return whether the student is more robust, and whether that is more than its clean accuracy explains.

    `difference` is student − baseline in accuracy on changed images, `clean` on the same images unchanged, and `drop`
    in the accuracy lost from clean to changed; `lost_seeds` counts the trainings without numbers.
    """
    if difference is None or clean is None or drop is None:
        lost_seeds = f" ({lost_seeds})" if lost_seeds else ""
        return [f"Robustness to {what} not tested: no pair of baseline and student was measured{lost_seeds}."]
    points = f"{100 * difference.mean:+.2f} points of mean accuracy over the baseline"
    if difference.n == 1:
        return [f"Robustness to {what} not tested: {points}; one seed says nothing about training noise."]
    judged = judge(difference, lost_seeds)
    sure = judged.evidence
    word = f"{'more' if difference.mean > 0 else 'less'} robust to {what}"
    word = (f"No significant difference in robustness to {what}", f"Indicative, {word}", word.capitalize())[sure]
    first = f"{word}: {points} ({_numbers(difference)}{f', {lost_seeds}' if lost_seeds else ''})"
    if difference.n < statistics.ENOUGH_SEEDS:
        first += f"; {evidence.too_few(judged, difference.n)}"
    lost_more = drop.mean > 0
    second = (
        f"On the same clean images the difference is {100 * clean.mean:+.2f} points; from clean to changed images "
        f"the student loses {100 * abs(drop.mean):.2f} points {'more' if lost_more else 'less'} than the baseline"
    )
    surely = judge(drop, lost_seeds).evidence
    second += f"{(', not significant', ', indicative', '')[surely]} ({_numbers(drop)})"
    if sure > Evidence.NOT_SHOWN:
        explains = "does not explain it alone" if lost_more == (difference.mean < 0) else "explains it"
        second += f", so clean accuracy {explains if surely > Evidence.NOT_SHOWN else 'may explain it'}"
    return [f"{first}.", f"{second}."]


def _numbers(difference: Paired) -> str:
    spread = "all differences equal" if difference.low is None else f"95% {interval(difference.low, difference.high)}"
    return f"{spread}, p {evidence.p_value(difference.p or 1.0)}, n = {difference.n}"
