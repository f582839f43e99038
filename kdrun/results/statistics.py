"""What the numbers of a comparison can show, and how sure one may be. scipy does the mathematics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ENOUGH_SEEDS = 6  # below it no exact sign-flip test reaches p < 0.05
LEVEL = 0.05


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (ddof=1; None where n=1) and number of finite points."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences, its 95% t-interval and the exact sign-flip p-value; None where n is too small."""

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int


@dataclass(frozen=True)
class SingleRun:
    """Two networks on the same test examples: test-set noise for these two, not training noise."""

    mcnemar_p: float
    only_first_right: int
    only_second_right: int
    low: float
    high: float


def summary(points: Sequence[float]) -> Summary | None:
    """Summarise the finite points; None where there are none."""
    finite = [p for p in points if math.isfinite(p)]
    if not finite:
        return None
    std = float(np.std(finite, ddof=1)) if len(finite) > 1 else None
    return Summary(float(np.mean(finite)), std, len(finite))


def paired(differences: Sequence[float]) -> Paired | None:
    """Test whether paired differences (one per seed) have mean 0; None where there are none.

    The interval is Student's t; the p-value is exact: every assignment of signs is tried, two-sided.
    """
    finite = np.array([d for d in differences if math.isfinite(d)], dtype=np.float64)
    n = len(finite)
    if n == 0:
        return None
    mean = float(finite.mean())
    if n == 1:
        return Paired(mean, None, None, None, 1)
    low, high = mean, mean
    if (error := float(stats.sem(finite))) > 0:
        low, high = (float(v) for v in stats.t.interval(0.95, n - 1, loc=mean, scale=error))
    return Paired(mean, low, high, _sign_flip(finite), n)


def _sign_flip(differences: NDArray[np.float64]) -> float:
    if not differences.any():
        return 1.0
    # rounded, so that equal sums in another order count as equal
    test = stats.permutation_test(
        (differences,),
        lambda x, axis: np.round(np.mean(x, axis=axis), 12),
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="two-sided",
        vectorized=True,
    )
    return float(test.pvalue)


def smallest_p(n: int) -> float:
    """Give the smallest two-sided p that an exact sign-flip test over n pairs can reach."""
    return 2.0 / 2.0**n


def single_run(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> SingleRun:
    """Compare two networks on the same test examples, (N,) right or wrong each: `second` minus `first`.

    McNemar's exact test on the examples that only one gets right, and the 95% interval of the difference in
    accuracy by a paired bootstrap (percentile, 10,000 resamples, seed 0).
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p = float(stats.binomtest(only_second, discordant, 0.5).pvalue) if discordant else 1.0
    gain = second.astype(np.float64) - first.astype(np.float64)
    # a resample of N paired differences in {-1, 0, 1} is a multinomial draw: exact, and fast for large N
    n = len(gain)
    shares = np.array([only_first, n - discordant, only_second]) / n
    draws = np.random.default_rng(0).multinomial(n, shares, size=10_000)
    low, high = np.percentile((draws[:, 2] - draws[:, 0]) / n, [2.5, 97.5])
    return SingleRun(p, only_first, only_second, float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979): step-down Bonferroni, in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def seeds_needed(tests: int) -> int:
    """Give the number of seeds from which Holm over this many tests can reach p < 0.05 at all."""
    n = 1
    while tests * smallest_p(n) >= LEVEL:
        n += 1
    return n


def gap_closed(student: float, baseline: float, teacher: float) -> float | None:
    """Give the share of the way from baseline to teacher that the student went; None where there is no way."""
    return (student - baseline) / (teacher - baseline) if teacher > baseline else None


def verdict(
    difference: Paired | None,
    *,
    gap: float | None,
    asked: int,
    diverged: int = 0,
    single: SingleRun | None = None,
) -> str:
    """Say in words what the comparison shows: gain, loss or not shown, with its numbers (accuracies in [0, 1])."""
    if difference is None:
        return "Not shown: no pair of baseline and student was finished."
    points = f"{100 * difference.mean:+.2f} points of test accuracy over the baseline"
    closed = "" if gap is None else f", {100 * gap:.0f}% of the teacher–baseline gap closed"
    lost = f" ({difference.n} of {asked}, {diverged} diverged)" if diverged else ""
    if difference.n == 1:
        why = "one seed says nothing about training noise"
        if single is not None:
            low, high = 100 * single.low, 100 * single.high
            why += f"; test-set noise for these two models alone: 95% [{low:+.2f}, {high:+.2f}], McNemar p = {_p(single.mcnemar_p)}"
        return f"Not shown: {points}{closed}{lost}; {why}."
    assert difference.low is not None and difference.high is not None and difference.p is not None
    numbers = f"95% [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}], p = {_p(difference.p)}, n = {difference.n}"
    excludes = difference.low > 0 or difference.high < 0
    direction = "gain" if difference.mean > 0 else "loss"
    if difference.n < ENOUGH_SEEDS or diverged:
        word = f"Indicative {direction}" if excludes else "Not shown"
        need = (
            f"; {difference.n} seeds cannot reach p < 0.05 (smallest {smallest_p(difference.n):.2g}): type seeds={ENOUGH_SEEDS} or more"
            if difference.n < ENOUGH_SEEDS
            else "; with a diverged seed no more can be said"
        )
        return f"{word}: {points} ({numbers}){closed}{lost}{need}."
    if excludes and difference.p < LEVEL:
        return f"{direction.capitalize()}: {points} ({numbers}){closed}."
    return f"Not shown: {points} ({numbers}){closed}."


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"
