"""What a paired difference shows: the rule that decides it, and the words of a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from kdrun.results.statistics import ENOUGH_SEEDS, LEVEL, Paired, SingleRun, smallest_p


class Evidence(IntEnum):
    """How well a difference is established, in rising order."""

    NOT_SHOWN = 0
    INDICATIVE = 1  # the interval excludes 0, but seeds are too few, or some were lost
    SHOWN = 2


@dataclass(frozen=True)
class Judgement:
    """How well a difference is established, and whether it is positive."""

    evidence: Evidence
    positive: bool

    @property
    def word(self) -> str:
        """The word that a verdict begins with: `Gain`, `Indicative loss`, `Not shown`."""
        direction = "gain" if self.positive else "loss"
        return ("Not shown", f"Indicative {direction}", direction.capitalize())[self.evidence]


def judge(difference: Paired | None, lost: object = False, p: float | None = None) -> Judgement:
    """Decide what a paired difference shows; every verdict, table and page uses this rule.

    A difference is shown if p < 0.05 and the 95% interval excludes 0, over at least 6 pairs with no seed `lost`;
    equal differences have no interval, and p decides alone. If a seed is lost, or with fewer pairs, an interval that
    excludes 0 is indicative. `p` replaces the difference's own p-value if it was corrected for several tests.
    """
    if difference is None or difference.p is None:
        return Judgement(Evidence.NOT_SHOWN, False)
    low, high = difference.low, difference.high
    excludes = low is not None and high is not None and (low > 0 or high < 0)
    if difference.n < ENOUGH_SEEDS:
        evidence = Evidence.INDICATIVE if excludes else Evidence.NOT_SHOWN
    elif not (excludes or low is None) or (difference.p if p is None else p) >= LEVEL:
        evidence = Evidence.NOT_SHOWN
    else:
        evidence = Evidence.INDICATIVE if lost else Evidence.SHOWN
    return Judgement(evidence, difference.mean > 0)


def verdict(
    difference: Paired | None,
    *,
    gap: float | None,
    asked: int,
    towards: str = "teacher",
    lost: str = "",
    single: SingleRun | None = None,
) -> str:
    """Return the verdict in words: gain, loss or not shown (see `judge`), with its numbers (accuracies in [0, 1]).

    `asked` is the number of seeds, `towards` names the row that the gap is measured to, and `lost` counts the
    trainings without numbers (`1 diverged`).
    """
    lost_seeds = f" ({0 if difference is None else difference.n} of {asked}, {lost})" if lost else ""
    if difference is None:
        return f"Not shown: no pair of baseline and student was finished{lost_seeds}."
    n, low, high, p = difference.n, difference.low, difference.high, difference.p
    points = f"{100 * difference.mean:+.2f} points of test accuracy over the baseline"
    closed = ""
    if gap is not None:
        way = f"{abs(100 * gap):.0f}%"
        closed = f", {way} of the {towards}–baseline gap closed" if gap >= 0 else f", {way} further from the {towards}"
    if p is None:
        why = "one seed says nothing about training noise"
        if single is not None:
            why += (
                "; test-set noise for these two models alone: "
                f"95% {interval(single.low, single.high)}, McNemar p {p_value(single.mcnemar_p)}"
            )
        return f"Not shown: {points}{closed}{lost_seeds}; {why}."
    spread = "all differences equal" if low is None else f"95% {interval(low, high)}"
    numbers = f"{points} ({spread}, p {p_value(p)}, n = {n}){closed}{lost_seeds}"
    judged = judge(difference, lost)
    if n < ENOUGH_SEEDS:
        numbers += (
            f"; {n} seeds cannot reach p < 0.05 (smallest {smallest_p(n):.2g}): type seeds={ENOUGH_SEEDS} or more"
        )
    elif judged.evidence is Evidence.INDICATIVE:
        numbers += "; with a seed lost no more can be said"
    return f"{judged.word}: {numbers}."


def corrected(uncorrected: str, judged: Judgement, p: float, tests: int) -> str:
    """Return a verdict with the judgement by p corrected for the number of tests in the place of its own."""
    _, _, numbers = uncorrected.partition(": ")
    return f"{judged.word}, corrected for {tests} tests (p Holm {p_value(p)}): {numbers}"


def p_value(p: float) -> str:
    """Write a p-value with its sign: `= 0.031`, `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.4f}" if p < 0.01 else f"= {p:.3f}"


def interval(low: float | None, high: float | None) -> str:
    """Write an interval of shares in points: `[+0.41, +2.00]`, – if there is none."""
    return "–" if low is None or high is None else f"[{100 * low:+.2f}, {100 * high:+.2f}]"
