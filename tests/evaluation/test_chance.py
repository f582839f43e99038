"""Better than chance is what a one-sided exact binomial test says against the share of the largest class."""

from math import comb

import numpy as np
import pytest

from kdrun.evaluation.chance import better_than_chance, largest_share

LABELS = np.array([0] * 60 + [1] * 40)


def tail(right, count, share):
    """Probability of at least so many right by luck, summed by hand."""
    return sum(comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(right, count + 1))


def test_the_largest_class_is_that_of_the_known_labels():
    assert largest_share(np.array([2, 2, 1, -1, -1, -1])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("right", [0, 40, 60, 70, 71, 72, 73, 100])
def test_it_is_the_exact_test_at_one_per_cent(right):
    assert better_than_chance(right / 100, LABELS) == (tail(right, 100, 0.6) < 0.01)
