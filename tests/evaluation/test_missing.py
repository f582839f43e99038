"""The one offset for classes that a network was never shown: by hand, and against trying everything."""

from itertools import pairwise

import numpy as np
import pytest

from kdrun.evaluation.accuracy import accuracy
from kdrun.evaluation.missing import best_offset, shifted


def drawn(seed, n=60, c=5, omitted=(2,)):
    """Logits that know something of every class, those omitted pushed down."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, c, n)
    logits = rng.normal(size=(n, c)) + 2 * np.eye(c)[labels]
    logits[:, list(omitted)] -= 3
    return logits.astype(np.float32), labels


def tried(logits, labels, omitted):
    """Every offset at which the accuracy could be another, each with its accuracy: a loop over samples."""
    others = [c for c in range(logits.shape[1]) if c not in omitted]
    turns = sorted({float(max(z[others].astype(float)) - max(z[list(omitted)].astype(float))) for z in logits})
    between = [(a + b) / 2 for a, b in pairwise(turns)]
    offsets = [turns[0] - 1, *between, turns[-1] + 1, 0.0]
    return [(accuracy(shifted(logits, omitted, offset), labels), offset) for offset in offsets]


def test_the_offset_is_the_one_found_by_hand():
    labels = np.array([2, 2, 0, 1])
    logits = np.array([[1.0, 0, 0], [3, 0, 0], [5, 0, 1], [0, 9, 0]])
    # class 2 is right in the first from 1 on and in the second from 3 on, and wrong in the third from 4 on
    assert best_offset(logits, labels, [2]) == 3.5
    assert accuracy(shifted(logits, [2], 3.5), labels) == 1.0
    assert accuracy(logits, labels) == 0.5


@pytest.mark.parametrize("omitted", [(2,), (0, 4), (3, 1, 0)])
@pytest.mark.parametrize("seed", range(8))
def test_no_other_offset_gets_more_right_and_none_as_good_is_nearer_to_zero(seed, omitted):
    logits, labels = drawn(seed, omitted=omitted)
    everything = tried(logits, labels, omitted)
    result = best_offset(logits, labels, omitted)
    best = max(right for right, _ in everything)
    assert accuracy(shifted(logits, omitted, result), labels) == best > accuracy(logits, labels)
    assert abs(result) == pytest.approx(min(abs(offset) for right, offset in everything if right == best))


def test_where_nothing_is_to_be_gained_the_offset_is_nil():
    labels = np.arange(40) % 4
    assert best_offset(5.0 * np.eye(4)[labels], labels, [3]) == 0.0
    assert best_offset(np.zeros((4, 3)), np.zeros(4, dtype=int), [1]) == 0.0  # all equal: the first class is answered


def test_a_class_that_is_answered_too_often_is_pushed_down():
    labels = np.array([0, 0, 1, 2])
    logits = np.array([[1.0, 0, 2], [1, 0, 2.5], [0, 1, 1.5], [0, 0, 4]])
    assert best_offset(logits, labels, [2]) == -2.75  # from -4 to -1.5 all are right; the middle


def test_moving_the_logits_moves_the_offset_by_as_much():
    logits, labels = drawn(3)
    moved = best_offset(shifted(logits, [2], -1.75), labels, [2])
    assert moved == pytest.approx(best_offset(logits, labels, [2]) + 1.75)


def test_samples_with_equal_margins_turn_together():
    labels = np.array([1, 1, 0, 0, 0])
    logits = np.array([[2.0, 0]] * 5)
    assert best_offset(logits, labels, [1]) == 0.0  # beyond 2 only two of five would be right
    assert best_offset(logits, 1 - labels, [1]) == 3.0


def test_shifting_touches_only_the_classes_named_and_leaves_the_logits_themselves():
    logits = np.ones((2, 3), dtype=np.float32)
    assert shifted(logits, [0, 2], 0.5).tolist() == [[1.5, 1, 1.5]] * 2
    assert logits.tolist() == [[1, 1, 1]] * 2


@pytest.mark.parametrize("omitted", [[], [0, 1, 2], [3], [-1]])
def test_classes_that_do_not_exist_none_and_all_are_refused(omitted):
    with pytest.raises(ValueError, match=r"omitted classes .*some, not all, of 0 to 2"):
        best_offset(np.zeros((2, 3)), np.zeros(2, dtype=int), omitted)


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"\(N, C\) and \(N,\)"):
        best_offset(np.zeros((2, 3)), np.zeros(3, dtype=int), [1])
