"""Summaries, paired tests, bootstraps and corrections for the numbers of a comparison, by scipy where it has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENOUGH_SEEDS = 6  # with fewer, no exact sign-flip test reaches p < 0.05
LEVEL = 0.05
BOOTSTRAPS = 10_000
_NIL = 1e-12  # accuracies closer than this are equal but for rounding


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (ddof=1; None if n=1) and number of finite points."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Paired:
    """The mean of n paired differences, its 95% t-interval and the exact sign-flip p-value.

    With n=1 there is neither. If all differences are equal there is no interval: the spread is 0 because accuracy is
    counted in whole images, not because the seeds have no noise.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int


@dataclass(frozen=True)
class Bootstrapped:
    """The mean difference of two networks on the same test images, and its 95% interval for test-set noise alone."""

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
    """McNemar's test and a 95% interval for two networks on the same test images: no training noise."""

    mcnemar_p: float
    only_first_right: int
    only_second_right: int
    low: float
    high: float


def as_json(statistic: object) -> Any:
    """Return a statistic's fields by name, for JSON."""
    return None if statistic is None else vars(statistic)


def summary(points: Sequence[float]) -> Summary | None:
    """Summarise the finite points; None if there are none."""
    finite = [p for p in points if math.isfinite(p)]
    if not finite:
        return None
    std = float(np.std(finite, ddof=1)) if len(finite) > 1 else None
    return Summary(float(np.mean(finite)), std, len(finite))


def paired(differences: Sequence[float]) -> Paired | None:
    """Test whether paired differences, one per seed, have mean 0; None if none is finite.

    The interval is Student's t. The p-value is two-sided and exact, over all assignments of signs.
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
        from scipy.special import stdtrit  # scipy.stats takes half as long to import as torch

        error = finite.std(ddof=1) / math.sqrt(n)
        low, high = (float(stdtrit(n - 1, q) * error + mean) for q in ((1 - 0.95) / 2, (1 + 0.95) / 2))
    return Paired(mean, low, high, _sign_flip(finite), n)


def pair_by_seed(own: Mapping[int, float], base: Mapping[int, float]) -> Paired | None:
    """Test the paired differences own − base of two rows' numbers, keyed by seed, over the seeds that both have."""
    return paired([own[seed] - base[seed] for seed in own if seed in base])


def _sign_flip(differences: NDArray[np.float64]) -> float:
    """Return the exact two-sided p-value: the share of all 2^n sign assignments with a mean at least as far from 0.

    It takes about 2^(n/2) steps: the sums of one half are looked up among those of the other.
    """

    def sums(part: NDArray[np.float64]) -> NDArray[np.float64]:
        totals = np.zeros(1)
        for d in np.abs(part):
            totals = np.concatenate([totals - d, totals + d])
        return totals

    middle = len(differences) // 2
    left, right = sums(differences[:middle]), np.sort(sums(differences[middle:]))
    least = abs(differences.sum()) - _NIL * len(differences)  # sums that differ by rounding count as equal
    if least <= 0:
        return 1.0
    above = len(right) - np.searchsorted(right, least - left, side="left")
    return float(2.0 * above.sum() / 2.0 ** len(differences))  # and as many below, by symmetry


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p-value that an exact sign-flip test over n pairs can reach."""
    return 2.0 / 2.0**n


def single_run(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> SingleRun:
    """Compare two networks on the same test images, `second` minus `first`: (N,) of right or wrong each.

    By McNemar's exact test on the images that only one gets right, and the 95% interval of the difference in
    accuracy by a paired bootstrap over images (percentile, 10,000 resamples, seed 0). Raise ValueError if the
    numbers of images differ or are 0.
    """
    from scipy.special import bdtr

    if first.shape != second.shape or not first.size:
        raise ValueError(f"cannot pair {len(first)} test examples with {len(second)}")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant, n = only_first + only_second, len(first)
    p = min(1.0, 2.0 * float(bdtr(min(only_first, only_second), discordant, 0.5))) if discordant else 1.0
    bootstrap = _bootstrap(np.array([-1.0, 0.0, 1.0]), np.array([only_first, n - discordant, only_second]))
    return SingleRun(p, only_first, only_second, bootstrap.low, bootstrap.high)


def bootstrapped(differences: NDArray[np.float64]) -> Bootstrapped:
    """Return the mean of differences (N,) on the same test images with its 95% interval, by a paired bootstrap.

    An image's difference is that of two shares: of the networks on either side that are right on it. So differences
    have few distinct values. The interval is by percentiles (10,000 resamples, seed 0). Raise ValueError if there is
    no image.
    """
    if not differences.size:
        raise ValueError("there is no test example to resample")
    return _bootstrap(*np.unique(np.round(differences, 12), return_counts=True))


def _bootstrap(values: NDArray[np.float64], counts: NDArray[np.int64]) -> Bootstrapped:
    """Resample images with few different values: drawing them with replacement is one multinomial draw."""
    return _resampled(tuple(values.tolist()), tuple(counts.tolist()))


@lru_cache(maxsize=256)  # most cells of a sweep have the same teacher and the same baseline
def _resampled(distinct: tuple[float, ...], times: tuple[int, ...]) -> Bootstrapped:
    values, counts, n = np.array(distinct), np.array(times), sum(times)
    draws = np.random.default_rng(0).multinomial(n, counts / n, size=BOOTSTRAPS)
    low, high = np.percentile(draws @ values / n, [2.5, 97.5])
    return Bootstrapped(float(counts @ values / n), float(low), float(high))


def luck(groups: Sequence[Sequence[tuple[float, float]]]) -> Correlation | None:
    """Return Pearson's r between two numbers of each run, both as deviations from the means of the run's group.

    Groups of one run are left out. None with fewer than three runs, or if one of the numbers never deviates.
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
    """Return p-values corrected for their number, in their order, by Holm's step-down Bonferroni (1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def seeds_needed(tests: int) -> int:
    """Return the fewest seeds with which Holm's correction over this many tests can reach p < 0.05."""
    return next(n for n in count(1) if tests * smallest_p(n) < LEVEL)


def gap_closed(student: float, baseline: float, teacher: float) -> float | None:
    """Return the share of the teacher–baseline gap that the student closes; None if there is no gap."""
    if teacher - baseline <= _NIL:
        return None
    return 0.0 if abs(student - baseline) < _NIL else (student - baseline) / (teacher - baseline)
