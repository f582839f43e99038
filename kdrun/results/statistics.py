"""What the numbers of a comparison can show, and how sure one may be. scipy does the mathematics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENOUGH_SEEDS = 6  # below it no exact sign-flip test reaches p < 0.05
LEVEL = 0.05
BOOTSTRAPS = 10_000
_NIL = 1e-12  # accuracies closer than this are equal: they differ by the rounding of a division
_ENUMERABLE = 8  # pairs whose 2^n signs scipy goes through in a few ms: a table has a test for each class


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (ddof=1; None where n=1) and number of finite points."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Paired:
    """The mean of n paired differences, its 95% t-interval and the exact sign-flip p-value.

    With n=1 there is neither; where all differences are equal there is no interval, since a spread of nil says
    that accuracy is counted in whole images, not that the seeds have no noise.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int


class Evidence(IntEnum):
    """How well a difference is established, in rising order."""

    NOT_SHOWN = 0
    INDICATIVE = 1  # the interval leaves out 0, but seeds are too few, or some were lost
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
        return {
            Evidence.SHOWN: direction.capitalize(),
            Evidence.INDICATIVE: f"Indicative {direction}",
            Evidence.NOT_SHOWN: "Not shown",
        }[self.evidence]


NOT_SHOWN = Judgement(Evidence.NOT_SHOWN, False)


@dataclass(frozen=True)
class Bootstrapped:
    """The mean difference of two networks on the same test examples and its 95% interval: test-set noise alone."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Correlation:
    """Pearson's r, over n points."""

    r: float
    n: int


@dataclass(frozen=True)
class SingleRun:
    """Two networks on the same test examples: test-set noise for these two, not training noise."""

    mcnemar_p: float
    only_first_right: int
    only_second_right: int
    low: float
    high: float


def as_json(statistic: Summary | Paired | SingleRun | Bootstrapped | Correlation | None) -> Any:
    """Return a statistic as JSON: its fields by name."""
    return None if statistic is None else vars(statistic)


def summary(points: Sequence[float]) -> Summary | None:
    """Summarise the finite points; None where there are none."""
    finite = [p for p in points if math.isfinite(p)]
    if not finite:
        return None
    std = float(np.std(finite, ddof=1)) if len(finite) > 1 else None
    return Summary(float(np.mean(finite)), std, len(finite))


def paired(differences: Sequence[float]) -> Paired | None:
    """Test whether paired differences (one per seed) have mean 0; None where none is finite.

    The interval is Student's t; the p-value is exact: every assignment of signs is tried, two-sided.
    """
    finite = np.array([d for d in differences if math.isfinite(d)], dtype=np.float64)
    n = len(finite)
    if n == 0:
        return None
    mean = float(finite.mean())
    if n == 1:
        return Paired(mean, None, None, None, 1)
    low = high = None
    if np.ptp(finite) > _NIL:
        from scipy import stats

        low, high = (float(v) for v in stats.t.interval(0.95, n - 1, loc=mean, scale=stats.sem(finite)))
    return Paired(mean, low, high, _sign_flip(finite), n)


def pair_by_seed(own: Mapping[int, float], base: Mapping[int, float]) -> Paired | None:
    """Test the differences of two networks' numbers, keyed by seed, over the seeds that both have."""
    return paired([own[seed] - base[seed] for seed in own if seed in base])


def judge(difference: Paired | None, lost: object = False, p: float | None = None) -> Judgement:
    """Decide what a paired difference shows; every verdict, table and page takes its word from here.

    A difference is shown if p < 0.05 and the 95% interval excludes 0, over at least 6 pairs with no seed `lost`;
    equal differences have no interval, and p decides alone. If a seed is lost, or with fewer pairs, an interval that
    excludes 0 is indicative. `p` replaces the difference's own p-value where it was corrected for several tests.
    """
    if difference is None or difference.p is None:
        return NOT_SHOWN
    low, high = difference.low, difference.high
    excludes = low is not None and high is not None and (low > 0 or high < 0)
    if difference.n < ENOUGH_SEEDS:
        evidence = Evidence.INDICATIVE if excludes else Evidence.NOT_SHOWN
    elif not (excludes or low is None) or (difference.p if p is None else p) >= LEVEL:
        evidence = Evidence.NOT_SHOWN
    else:
        evidence = Evidence.INDICATIVE if lost else Evidence.SHOWN
    return Judgement(evidence, difference.mean > 0)


def _sign_flip(differences: NDArray[np.float64]) -> float:
    """Return the exact two-sided p-value: the share of all 2^n sign assignments with a mean at least as far from 0."""
    if len(differences) > _ENUMERABLE:
        return _sign_flip_by_halves(differences)
    from scipy import stats

    test = stats.permutation_test(
        (differences,),
        lambda x, axis: np.round(np.mean(x, axis=axis), 12),  # equal sums in another order count as equal
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="two-sided",
        vectorized=True,
        batch=2**14,
    )
    return float(test.pvalue)


def _sign_flip_by_halves(differences: NDArray[np.float64]) -> float:
    """Count the same 2^n assignments in 2^(n/2) steps: all sums of one half, looked up among those of the other.

    Going through them one by one takes scipy 0.2 s for 16 pairs, and twice as long for each further one.
    """

    def sums(part: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.zeros(1)
        for d in np.abs(part):
            found = np.concatenate([found - d, found + d])
        return found

    middle = len(differences) // 2
    left, right = sums(differences[:middle]), np.sort(sums(differences[middle:]))
    least = abs(differences.sum()) - _NIL * len(differences)
    if least <= 0:
        return 1.0
    above = len(right) - np.searchsorted(right, least - left, side="left")
    return float(2.0 * above.sum() / 2.0 ** len(differences))  # by symmetry as many lie below


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p that an exact sign-flip test over n pairs can reach."""
    return 2.0 / 2.0**n


def single_run(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> SingleRun:
    """Compare two networks on the same test examples, (N,) right or wrong each: `second` minus `first`.

    McNemar's exact test on the examples that only one gets right, and the 95% interval of the difference in
    accuracy by a paired bootstrap over examples (percentile, 10,000 resamples, seed 0). Raises ValueError where
    the two were not asked about the same examples.
    """
    from scipy import stats

    if first.shape != second.shape or not first.size:
        raise ValueError(f"cannot pair {len(first)} test examples with {len(second)}")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant, n = only_first + only_second, len(first)
    p = float(stats.binomtest(only_second, discordant, 0.5).pvalue) if discordant else 1.0
    found = _bootstrap(np.array([-1.0, 0.0, 1.0]), np.array([only_first, n - discordant, only_second]))
    return SingleRun(p, only_first, only_second, found.low, found.high)


def bootstrapped(differences: NDArray[np.float64]) -> Bootstrapped:
    """Return the mean of differences on the same test examples, (N,), with its 95% interval, by a paired bootstrap.

    Of shares of being right, averaged over networks on either side, so that there are few values (percentile,
    10,000 resamples, seed 0). Raises ValueError where there is no example.
    """
    if not differences.size:
        raise ValueError("there is no test example to resample")
    return _bootstrap(*np.unique(np.round(differences, 12), return_counts=True))


def _bootstrap(values: NDArray[np.float64], counts: NDArray[np.int64]) -> Bootstrapped:
    """Resample examples of so few different values: drawn with replacement they are a multinomial draw, at once."""
    n = int(counts.sum())
    draws = np.random.default_rng(0).multinomial(n, counts / n, size=BOOTSTRAPS)
    low, high = np.percentile(draws @ values / n, [2.5, 97.5])
    return Bootstrapped(float(counts @ values / n), float(low), float(high))


def luck(groups: Sequence[Sequence[tuple[float, float]]]) -> Correlation | None:
    """Correlate two numbers of each run within their groups: Pearson's r of the deviations from the groups' means.

    A group of one run says nothing. None with fewer than three runs, and where one of the numbers never deviates.
    """
    told = [np.array(group, dtype=np.float64) for group in groups if len(group) > 1]
    told = [group[np.isfinite(group).all(axis=1)] for group in told]
    away = [group - group.mean(axis=0) for group in told if len(group) > 1]
    if not away or (n := sum(map(len, away))) < 3:
        return None
    first, second = np.concatenate(away).T
    spread = math.sqrt(float(first @ first) * float(second @ second))
    return None if spread <= _NIL * n else Correlation(float(first @ second) / spread, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979): step-down Bonferroni, in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def seeds_needed(tests: int) -> int:
    """Return the number of seeds from which Holm over this many tests can reach p < 0.05 at all."""
    n = 1
    while tests * smallest_p(n) >= LEVEL:
        n += 1
    return n


def gap_closed(student: float, baseline: float, teacher: float) -> float | None:
    """Return the share of the way from baseline to teacher that the student went; None where there is no way."""
    if teacher - baseline <= _NIL:
        return None
    return 0.0 if abs(student - baseline) < _NIL else (student - baseline) / (teacher - baseline)


def verdict(
    difference: Paired | None,
    *,
    gap: float | None,
    asked: int,
    towards: str = "teacher",
    lost: str = "",
    single: SingleRun | None = None,
) -> str:
    """Return what the comparison shows: gain, loss or not shown, with its numbers (accuracies in [0, 1]).

    `asked` is the number of seeds, `towards` names what the gap is measured to, `lost` says which trainings did
    not end with numbers (`1 diverged`). What is shown is decided by `judge`.
    """
    gone = f" ({0 if difference is None else difference.n} of {asked}, {lost})" if lost else ""
    if difference is None:
        return f"Not shown: no pair of baseline and student was finished{gone}."
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
        return f"Not shown: {points}{closed}{gone}; {why}."
    spread = "all differences equal" if low is None else f"95% {interval(low, high)}"
    numbers = f"{points} ({spread}, p {p_value(p)}, n = {n}){closed}{gone}"
    judged = judge(difference, lost)
    if n < ENOUGH_SEEDS:
        numbers += (
            f"; {n} seeds cannot reach p < 0.05 (smallest {smallest_p(n):.2g}): type seeds={ENOUGH_SEEDS} or more"
        )
    elif judged.evidence is Evidence.INDICATIVE:
        numbers += "; with a seed lost no more can be said"
    return f"{judged.word}: {numbers}."


def corrected(said: str, judged: Judgement, p: float, tests: int) -> str:
    """Return the verdict `said` of one of several comparisons, judged by p corrected for their number."""
    _, _, numbers = said.partition(": ")
    return f"{judged.word}, corrected for {tests} tests (p Holm {p_value(p)}): {numbers}"


def p_text(p: float) -> str:
    """Write a p-value as `p = 0.031` or `p < 0.0001`."""
    return f"p {p_value(p)}"


def p_value(p: float) -> str:
    """Write a p-value with its sign: `= 0.031`, `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.4f}" if p < 0.01 else f"= {p:.3f}"


def interval(low: float | None, high: float | None) -> str:
    """Write an interval of shares in points: `[+0.41, +2.00]`, – where there is none."""
    return "–" if low is None or high is None else f"[{100 * low:+.2f}, {100 * high:+.2f}]"
