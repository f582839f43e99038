"""Networks that answer together, against the mean of scipy's softmax."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from kdrun.evaluation.accuracy import nll
from kdrun.evaluation.ensemble import mixture


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**31))
def test_it_is_the_weighted_mean_of_the_probabilities(networks, samples, classes, seed):
    rng = np.random.default_rng(seed)
    logits = [5 * rng.normal(size=(samples, classes)) for _ in range(networks)]
    weights = rng.uniform(0.1, 3, size=networks)
    by_hand = sum(w * softmax(z, axis=1) for w, z in zip(weights / weights.sum(), logits, strict=True))
    np.testing.assert_allclose(np.exp(mixture(logits, weights.tolist())), by_hand, rtol=1e-10)


def test_a_network_alone_and_its_copies_answer_as_it_does():
    z = np.random.default_rng(0).normal(size=(7, 3))
    for several in ([z], [z, z + 100, z - 3]):  # a shift of all logits is no other network
        np.testing.assert_allclose(np.exp(mixture(several, [1.0] * len(several))), softmax(z, axis=1), rtol=1e-10)


def test_a_network_that_weighs_nothing_says_nothing():
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3))
    np.testing.assert_array_equal(mixture([a, b], [2, 0]), mixture([a], [1]))


def test_what_all_are_sure_is_wrong_stays_a_large_finite_number():
    z = np.array([[0.0, 5000.0]], dtype=np.float32)
    assert nll(mixture([z, z], [1, 1]), np.array([0])) == pytest.approx(5000)


def test_half_sure_and_wholly_sure_are_averaged_as_probabilities_and_not_as_logits():
    z = [np.array([[0.0, 0.0]]), np.array([[100.0, 0.0]])]
    assert np.exp(mixture(z, [1, 1]))[0] == pytest.approx([0.75, 0.25])
    assert np.exp(mixture(z, [3, 1]))[0] == pytest.approx([0.625, 0.375])


@pytest.mark.parametrize(
    ("shapes", "weights", "message"),
    [
        ([(2, 3), (2, 4)], [1, 1], r"logits \(2, 3\), \(2, 4\) are not of the same samples and classes"),
        ([(3,)], [1], r"logits \(3,\) are not"),
        ([(2, 3), (2, 3)], [1], r"weights \[1\] are not 2 shares of at least 0"),
        ([(2, 3), (2, 3)], [1, -1], "with a sum above 0"),
        ([(2, 3), (2, 3)], [0, 0], "with a sum above 0"),
    ],
)
def test_what_does_not_fit_is_refused(shapes, weights, message):
    with pytest.raises(ValueError, match=message):
        mixture([np.zeros(shape) for shape in shapes], weights)
