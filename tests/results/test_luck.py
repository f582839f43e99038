"""Luck on validation and on test data, and the noise of test images."""

import math

import numpy as np
import pytest
from scipy import stats

from kdrun.results import evidence, statistics


@pytest.mark.parametrize("networks", [1, 3])
def test_the_bootstrap_over_averaged_networks_is_that_of_scipy(networks):
    rng = np.random.default_rng(1)
    teacher, baselines = rng.random(400) < 0.9, rng.random((networks, 400)) < 0.84
    d = teacher - baselines.mean(axis=0)
    result = statistics.bootstrapped(d)
    expected = stats.bootstrap((d,), np.mean, method="percentile", n_resamples=10_000, rng=rng).confidence_interval
    assert result.mean == pytest.approx(d.mean())
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=0.002)
    with pytest.raises(ValueError, match="no test example"):
        statistics.bootstrapped(d[:0])


def test_luck_is_pearsons_correlation_of_what_deviates_from_the_groups_means():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 6))
    y = 0.6 * x + 0.8 * rng.normal(size=(5, 6)) + np.arange(5)[:, None] * 7  # cells differ by much more than seeds do
    result = statistics.luck([list(zip(*pair, strict=True)) for pair in zip(x, y, strict=True)])
    away = [(v - v.mean(axis=1, keepdims=True)).ravel() for v in (x, y)]
    assert result.r == pytest.approx(stats.pearsonr(*away).statistic) and result.n == 30


def test_without_three_runs_or_without_spread_there_is_no_luck_to_correlate():
    assert statistics.luck([]) is None
    assert statistics.luck([[(0.1, 0.2)], [(0.3, 0.1)], [(0.2, 0.2)]]) is None  # one run each: all are their means
    assert statistics.luck([[(0.1, 0.2), (0.2, 0.3)]]) is None
    assert statistics.luck([[(0.1, 0.2), (0.1, 0.3), (0.1, 0.4)]]) is None
    assert statistics.luck([[(0.1, math.nan), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5)]]).n == 3


def false_gains(seeds, cells, r, trials=2000):
    """The shares of sweeps without any true gain that show one in the cell chosen on validation, and by Holm.

    Luck on validation and on test data correlates by r; all cells are held against the same baselines.
    """
    rng = np.random.default_rng(0)

    def lucks(*shape):
        v = rng.normal(size=shape)
        return v, r * v + math.sqrt(1 - r * r) * rng.normal(size=shape)

    signs = np.array(np.meshgrid(*[[-1, 1]] * seeds)).reshape(seeds, -1)
    shown = by_holm = 0
    for _ in range(trials):
        (own_val, own), (base_val, base) = lucks(cells, seeds), lucks(1, seeds)
        gains, best = own - base, int((own_val - base_val).mean(axis=1).argmax())
        chosen = gains[best]
        p = float((np.abs(chosen @ signs) >= abs(chosen.sum()) - 1e-9).mean())
        low = chosen.mean() - stats.t.ppf(0.975, seeds - 1) * chosen.std(ddof=1) / math.sqrt(seeds)
        if p < 0.05 and low > 0:
            shown += 1
            assert evidence.verdict(statistics.paired(list(chosen)), gap=None, asked=seeds).startswith("Gain")
            ps = [float((np.abs(g @ signs) >= abs(g.sum()) - 1e-9).mean()) for g in gains]
            by_holm += statistics.holm(ps)[best] < 0.05
    return shown / trials, by_holm / trials


@pytest.mark.parametrize(("seeds", "r", "share"), [(6, 0.0, 0.013), (6, 0.8, 0.065), (10, 0.8, 0.12)])
def test_choosing_on_validation_leaves_the_p_right_only_while_both_lucks_are_independent(seeds, r, share):
    """Of a two-sided test at 5%, 2.5% false gains are right (1.6% with 6 seeds, whose smallest p is 0.031)."""
    shown, by_holm = false_gains(seeds, 20, r)
    assert shown == pytest.approx(share, abs=0.015)
    assert by_holm <= 0.025
