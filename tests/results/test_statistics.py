"""What the numbers can show: held against scipy, and worked examples by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from kdrun.results import statistics
from kdrun.results.statistics import Paired, SingleRun


def test_the_standard_deviation_is_the_samples_and_one_point_has_none():
    assert statistics.summary([0.90, 0.92, 0.97]) == statistics.Summary(
        pytest.approx(0.93), pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2)), 3
    )
    assert statistics.summary([0.9]) == statistics.Summary(0.9, None, 1)


def test_points_without_a_number_are_left_out_of_a_summary():
    assert statistics.summary([0.9, math.nan, 0.7, math.inf]) == statistics.Summary(
        pytest.approx(0.8), pytest.approx(math.sqrt(0.02)), 2
    )
    assert statistics.summary([math.nan]) is None
    assert statistics.summary([]) is None


def test_the_interval_is_students_worked_by_hand():
    result = statistics.paired([0.01, 0.02, 0.06])
    # mean 0.03, variance (0.0004 + 0.0001 + 0.0009) / 2 = 0.0007, t(0.975, 2) = 4.302653
    half = 4.302653 * math.sqrt(0.0007 / 3)
    assert result.mean == pytest.approx(0.03)
    assert (result.low, result.high) == pytest.approx((0.03 - half, 0.03 + half), abs=1e-7)


def test_the_interval_is_scipys_of_one_sample():
    differences = np.random.default_rng(1).normal(0.004, 0.01, 7)
    result = statistics.paired(list(differences))
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def _signs_tried_one_by_one(differences):
    means = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return sum(m >= abs(sum(differences)) - 1e-12 for m in means) / 2 ** len(differences)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ((1, 2, 3), 2 / 8),  # only all + and all − lie as far out
        ((1, 2, -4), 8 / 8),  # the sums are ±1, ±3, ±5, ±7, and 1 is the least
        ((-1, 2, 4), 4 / 8),  # ±5 and ±7
        ((1, 1, -1), 8 / 8),  # ±1 six times, ±3 twice
        ((1, 1, 1, 1, 1, 1), 2 / 64),
        ((1, 1, 1, 1, 1, -1), 14 / 64),  # ±6 once each, ±4 six times each
        ((1, 2, 4, 8, 16, 32), 2 / 64),  # the sums are the odd numbers from -63 to 63
        ((-1, 2, 4, 8, 16, 32), 4 / 64),  # 61 and 63 on either side
    ],
)
def test_the_sign_flip_p_is_the_share_of_all_sign_assignments(differences, p):
    points = [d / 1000 for d in differences]
    assert statistics.paired(points).p == pytest.approx(p, rel=1e-12)
    assert _signs_tried_one_by_one(points) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize("n", [3, 5, 8, 11, 12])
@pytest.mark.parametrize("counted_in_images", [False, True])
def test_the_sign_flip_p_is_scipys(n, counted_in_images):
    differences = np.random.default_rng(n).normal(0.003, 0.01, n)
    if counted_in_images:  # many equal sums, in which rounding could decide
        differences = np.round(differences * 360) / 360
    expected = stats.permutation_test(
        (np.round(differences * 360) if counted_in_images else differences,),
        lambda x, axis: np.sum(x, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert statistics.paired(list(differences)).p == pytest.approx(expected.pvalue, rel=1e-9)


def test_a_sum_of_nil_is_p_one_whatever_the_rounding():
    differences = [d / 360 for d in (9, -2, 8, -6, -9)]  # of which the floating-point sum is not quite nil
    assert sum(differences) != 0.0
    assert statistics.paired(differences).p == 1.0


def test_thirty_pairs_are_counted_exactly_and_at_once():
    assert statistics.paired([0.001 * k for k in range(1, 31)]).p == 2 / 2**30


def test_equal_differences_have_no_interval_but_a_p():
    result = statistics.paired([0.01] * 6)
    assert (result.mean, result.low, result.high, result.p) == (pytest.approx(0.01), None, None, 2 / 64)


def test_no_difference_at_all_is_p_one():
    assert statistics.paired([0.0] * 6).p == 1.0
    assert statistics.paired([0.0] * 20).p == 1.0


def test_one_pair_has_neither_interval_nor_p_and_unfinished_pairs_do_not_count():
    assert statistics.paired([0.02, math.nan]) == Paired(0.02, None, None, None, 1)
    assert statistics.paired([math.nan]) is None


def test_the_smallest_possible_p():
    assert [round(statistics.smallest_p(n), 3) for n in (3, 6, 10)] == [0.25, 0.031, 0.002]


@pytest.mark.parametrize(("tests", "seeds"), [(1, 6), (2, 7), (3, 7), (4, 8), (8, 9), (16, 10)])
def test_the_seeds_that_holm_needs_to_reach_five_per_cent(tests, seeds):
    assert statistics.seeds_needed(tests) == seeds
    assert min(statistics.holm([2 / 2**seeds] * tests)) < 0.05 <= min(statistics.holm([2 / 2 ** (seeds - 1)] * tests))


def test_holm_worked_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04, and never below the one before
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def _right(*counts):
    """Make two networks from counts of: both right, only the first, only the second, neither."""
    both, one, two, none = counts
    return (
        np.array([True] * (both + one) + [False] * (two + none)),
        np.array([True] * both + [False] * one + [True] * two + [False] * none),
    )


@pytest.mark.parametrize(("only_first", "only_second"), [(3, 12), (12, 3), (0, 5), (7, 7)])
def test_mcnemar_is_the_exact_binomial_test_on_the_discordant(only_first, only_second):
    result = statistics.single_run(*_right(300, only_first, only_second, 40))
    assert (result.only_first_right, result.only_second_right) == (only_first, only_second)
    assert result.mcnemar_p == pytest.approx(stats.binomtest(only_first, only_first + only_second).pvalue)


def test_networks_that_are_right_on_the_same_images_do_not_differ():
    assert statistics.single_run(*_right(90, 0, 0, 10)) == SingleRun(1.0, 0, 0, 0.0, 0.0)


def test_the_bootstrap_interval_is_that_of_resampling_examples_one_by_one():
    first, second = _right(300, 4, 16, 40)
    result = statistics.single_run(first, second)
    random, d = np.random.default_rng(5), second.astype(int) - first.astype(int)
    drawn = [d[random.integers(0, len(d), len(d))].mean() for _ in range(4000)]
    assert (result.low, result.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=2 / 360)
    assert result.low == pytest.approx(12 / 360 - 1.96 * d.std() / math.sqrt(360), abs=2 / 360)


def test_networks_asked_about_different_examples_are_not_paired():
    with pytest.raises(ValueError, match="cannot pair 3 test examples with 2"):
        statistics.single_run(np.ones(3, bool), np.ones(2, bool))
    with pytest.raises(ValueError, match="cannot pair 0"):
        statistics.single_run(np.ones(0, bool), np.ones(0, bool))


def test_the_gap_closed_is_the_share_of_the_way_to_the_teacher():
    assert statistics.gap_closed(0.93, 0.90, 0.96) == pytest.approx(0.5)
    assert statistics.gap_closed(0.89, 0.90, 0.96) == pytest.approx(-1 / 6)
    assert statistics.gap_closed(0.93, 0.96, 0.96) is None
    assert statistics.gap_closed(0.93, 0.97, 0.96) is None
