"""What a paired difference shows: the rule that decides it, and the words of a verdict."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from kdrun.results.statistics import ENOUGH_SEEDS, LEVEL, Paired, SingleRun, smallest_p

UNTESTED = "Not tested"  # one seed
WORDS = (UNTESTED, "No significant difference", "Indicative gain", "Indicative loss", "Gain", "Loss")
OF_BEFORE = "Not shown"  # what older versions wrote for the first two
_WORD = re.compile(rf"\b(?:{'|'.join((*WORDS, OF_BEFORE))})(?=: )")


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
    tested: bool = True

    @property
    def word(self) -> str:
        """The words that a verdict begins with: `Gain`, `Indicative loss`, `No significant difference`."""
        _, none, *indicative_and_shown = WORDS
        if not self.tested or self.evidence is Evidence.NOT_SHOWN:
            return none if self.tested else UNTESTED
        gain, loss = indicative_and_shown[:2] if self.evidence is Evidence.INDICATIVE else indicative_and_shown[2:]
        return gain if self.positive else loss

    @property
    def brief(self) -> str:
        """One word for a list: `gain`, `loss?` (indicative), `unclear` (not significant), `untested`."""
        if self.evidence is Evidence.NOT_SHOWN:
            return "unclear" if self.tested else "untested"
        return ("gain" if self.positive else "loss") + "?" * (self.evidence is Evidence.INDICATIVE)

    def cell(self, better: str, worse: str) -> str:
        """Return the words of a table's cell: `better`, `worse, indicative`, `not significant`, `not tested`."""
        if self.evidence is Evidence.NOT_SHOWN:
            return "not significant" if self.tested else UNTESTED.lower()
        return (better if self.positive else worse) + ", indicative" * (self.evidence is Evidence.INDICATIVE)


def judge(difference: Paired | None, lost: object = False, p: float | None = None) -> Judgement:
    """Decide what a paired difference shows; every verdict, table and page uses this rule.

    A difference is shown if p < 0.05 and the 95% interval excludes 0, over at least 6 pairs with no seed `lost`. If
    all differences are equal there is no interval, and p alone decides. With a seed lost, such a difference is only
    indicative; with fewer pairs, one whose interval excludes 0 is. `p` is the p-value corrected for several tests, if
    there are several; it replaces the difference's own.
    """
    if difference is None or difference.p is None:
        return Judgement(Evidence.NOT_SHOWN, False, tested=False)
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
    """Return the verdict in words (see `Judgement.word`), with its numbers (accuracies in [0, 1]).

    `asked` is the number of seeds, `towards` names the row that the gap is measured to, and `lost` counts the
    trainings without numbers (`1 diverged`).
    """
    lost_seeds = f" ({0 if difference is None else difference.n} of {asked}, {lost})" if lost else ""
    if difference is None:
        return f"{UNTESTED}: no pair of baseline and student was finished{lost_seeds}."
    n, low, high, p = difference.n, difference.low, difference.high, difference.p
    points = f"{100 * difference.mean:+.2f} points of test accuracy over the baseline"
    closed = ""
    if gap is not None:
        share = f"{abs(100 * gap):.0f}%"
        closed = f", {share} of the {towards}–baseline gap closed"
        closed = closed if gap >= 0 else f", the gap to the {towards} grew by {share}"
    if p is None:
        why = "one seed says nothing about training noise"
        if single is not None:
            why += (
                "; test-set noise for these two models alone: "
                f"95% {interval(single.low, single.high)}, McNemar p {p_value(single.mcnemar_p)}"
            )
        return f"{UNTESTED}: {points}{closed}{lost_seeds}; {why}."
    spread = "all differences equal" if low is None else f"95% {interval(low, high)}"
    numbers = f"{points} ({spread}, p {p_value(p)}, n = {n}){closed}{lost_seeds}"
    judged = judge(difference, lost)
    if n < ENOUGH_SEEDS:
        numbers += f"; {too_few(judged, n)}"
    elif judged.evidence is Evidence.INDICATIVE:
        numbers += "; indicative at most, since a seed was lost"
    return f"{judged.word}: {numbers}."


def corrected(uncorrected: str, judged: Judgement, p: float, tests: int) -> str:
    """Return a verdict with `judged`, which is based on the p-value corrected for several tests, as its judgement."""
    return _WORD.sub(f"{judged.word}, corrected for {tests} tests (p Holm {p_value(p)})", uncorrected, count=1)


def too_few(judged: Judgement, n: int) -> str:
    """Return why n seeds are too few for any p < 0.05, and what to type; there must be fewer than ENOUGH_SEEDS."""
    least = f"with {n} seeds no exact test can go below p = {smallest_p(n):.2g}: type seeds={ENOUGH_SEEDS} or more"
    return f"the interval leaves out 0, but {least}" if judged.evidence is Evidence.INDICATIVE else least


def p_value(p: float) -> str:
    """Write a p-value with its sign: `= 0.031`, `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.4f}" if p < 0.01 else f"= {p:.3f}"


def interval(low: float | None, high: float | None) -> str:
    """Write an interval of shares in points: `[+0.41, +2.00]`, – if there is none."""
    return "–" if low is None or high is None else f"[{100 * low:+.2f}, {100 * high:+.2f}]"
