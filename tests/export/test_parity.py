"""A file is the network if its logits are, to within float32's rounding, and no image changes its class."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from kdrun.export.parity import TIE, TOLERANCE, compare

OWN = np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0], [4.0, 3.0, 0.0]])
LABELS = np.array([0, 1, 2, 1])


def test_the_numbers_are_those_of_numpy_and_scikit_learn():
    file = OWN + np.array([[0.5, 0, 0], [0, 0, -0.25], [0, 0, 0], [-2.0, 0, 0]])
    parity = compare(OWN, file, LABELS)
    assert (parity.images, parity.deviation, parity.spread) == (4, 2.0, OWN.std())
    assert (parity.changed, parity.undecided) == (1, 0)
    assert parity.accuracy == accuracy_score(LABELS, OWN.argmax(1)) == 0.75
    assert parity.file_accuracy == accuracy_score(LABELS, file.argmax(1)) == 1.0


def test_rounding_is_no_problem_and_more_than_that_is():
    spread = OWN.std()
    assert compare(OWN, OWN, LABELS).problem is None
    assert compare(OWN, OWN + 0.9 * TOLERANCE * spread, LABELS).problem is None
    problem = compare(OWN, OWN + 1.1 * TOLERANCE * spread, LABELS).problem
    assert problem is not None and "its logits differ by up to 0.0021" in problem and "0.001 of their spread" in problem


def test_a_class_that_changes_is_a_problem_however_small_the_deviation():
    own = OWN.copy()
    own[0] = [4.0, 4.0 - 0.5 * TOLERANCE, 0.0]
    file = own.copy()
    file[0, 1] += TOLERANCE
    parity = compare(own, file, LABELS)
    assert parity.deviation == pytest.approx(TOLERANCE) and parity.deviation < TOLERANCE * parity.spread
    assert parity.problem == "it classifies 1 of 4 test images differently"


def test_a_tie_may_fall_either_way():
    own = OWN.copy()
    own[0] = [4.0, 4.0 - 0.5 * TIE, 0.0]
    file = own.copy()
    file[0, 1] += TIE
    parity = compare(own, file, LABELS)
    assert (parity.changed, parity.undecided, parity.problem) == (1, 1, None)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_a_problem(wrong):
    file = OWN.copy()
    file[1, 1] = wrong
    assert compare(OWN, file, LABELS).problem is not None


def test_logits_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"logits of shape \(4, 2\), the network \(4, 3\)"):
        compare(OWN, OWN[:, :2], LABELS)
