"""Convergence and steadiness of a curve, by hand and by numpy."""

import numpy as np
import pytest

from kdrun.evaluation.curves import epochs_to, unsteadiness


def test_epochs_are_counted_from_one_to_a_share_of_the_last_value():
    curve = [0.1, 0.5, 0.72, 0.77, 0.79, 0.8]
    assert [epochs_to(curve, share) for share in (0.9, 0.95, 0.99, 1.0)] == [3, 4, 6, 6]


def test_a_curve_that_falls_at_the_end_reached_it_where_it_first_was_as_high():
    assert epochs_to([0.2, 0.9, 0.8, 0.5], 1.0) == 2


def test_without_a_curve_or_with_a_gap_there_is_no_answer():
    assert epochs_to([], 0.9) is None
    assert epochs_to([0.1, float("nan"), 0.3], 0.9) is None
    assert epochs_to([0.1, 0.05, 0.0], 0.9) is None  # every epoch is as high as nothing


def test_unsteadiness_is_the_standard_deviation_of_the_last_third():
    curve = [0.0, 0.3, 0.5, 0.6, 0.7, 0.68, 0.72]
    assert unsteadiness(curve) == pytest.approx(np.std([0.68, 0.72], ddof=1))
    assert unsteadiness([0.5] * 9) == 0
    assert unsteadiness([0.1, 0.2, 0.3]) is None  # a third of it is one value
