"""What the numbers of a comparison can show, and how sure one may be. scipy does the mathematics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


def as_json(statistic: object) -> Any:
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
        totals = np.zeros(1)
        for d in np.abs(part):
            totals = np.concatenate([totals - d, totals + d])
        return totals

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
    bootstrap = _bootstrap(np.array([-1.0, 0.0, 1.0]), np.array([only_first, n - discordant, only_second]))
    return SingleRun(p, only_first, only_second, bootstrap.low, bootstrap.high)


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
    finite = [np.array(group, dtype=np.float64) for group in groups if len(group) > 1]
    finite = [group[np.isfinite(group).all(axis=1)] for group in finite]
    away = [group - group.mean(axis=0) for group in finite if len(group) > 1]
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
