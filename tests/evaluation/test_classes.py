"""Accuracy per class, balanced accuracy, macro F1 and top-5, held against scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_accuracy

from kdrun.evaluation import classes

SEEDS = range(5)


def drawn(seed, n=400, c=7, skewed=True):
    """Logits that know something of labels whose classes are of very different sizes."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1, c + 1) / np.arange(1, c + 1).sum() if skewed else None
    labels = rng.choice(c, n, p=shares)
    logits = rng.normal(size=(n, c)).astype(np.float32)
    logits[np.arange(n), labels] += 1
    return logits, labels


@pytest.mark.parametrize("seed", SEEDS)
def test_confusion_counts_as_scikit_learn_does(seed):
    logits, labels = drawn(seed)
    expected = metrics.confusion_matrix(labels, logits.argmax(1), labels=range(7))
    assert np.array_equal(classes.confusion(logits, labels), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_balanced_accuracy_and_macro_f1_are_those_of_scikit_learn(seed):
    logits, labels = drawn(seed)
    counts, answers = classes.confusion(logits, labels), logits.argmax(1)
    assert classes.balanced_accuracy(counts) == pytest.approx(metrics.balanced_accuracy_score(labels, answers))
    assert classes.macro_f1(counts) == pytest.approx(metrics.f1_score(labels, answers, average="macro"))
    assert classes.per_class(counts) == pytest.approx(metrics.recall_score(labels, answers, average=None))


def test_a_class_without_samples_is_left_out_of_the_means_unless_it_is_answered():
    logits = np.eye(4)[[0, 1, 1, 0]]
    labels = np.array([0, 1, 1, 1])  # class 2 and 3 have no samples, and nobody answers so
    counts = classes.confusion(logits, labels)
    assert np.isnan(classes.per_class(counts)[2:]).all()
    assert classes.balanced_accuracy(counts) == pytest.approx((1 + 2 / 3) / 2)
    assert classes.macro_f1(counts) == pytest.approx(metrics.f1_score(labels, logits.argmax(1), average="macro"))
    answered = classes.confusion(np.eye(4)[[0, 1, 1, 3]], labels)
    expected = metrics.f1_score(labels, [0, 1, 1, 3], average="macro", zero_division=0)
    assert classes.macro_f1(answered) == pytest.approx(expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_is_that_of_torchmetrics(seed, k):
    logits, labels = drawn(seed)
    expected = multiclass_accuracy(
        torch.tensor(logits), torch.tensor(labels), num_classes=7, top_k=k, average="micro"
    ).item()
    assert classes.top_k(logits, labels, k) == pytest.approx(expected)


def test_top_1_is_accuracy_with_ties_as_well():
    logits, labels = np.array([[1.0, 1, 0], [1, 1, 0], [0, 1, 1]]), np.array([0, 1, 2])
    assert classes.top_k(logits, labels, 1) == pytest.approx(1 / 3)
    assert classes.top_k(logits, labels, 2) == 1


def test_top_5_of_five_classes_says_nothing():
    assert np.isnan(classes.top_k(np.eye(5), np.arange(5)))


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"\(N, C\) and \(N,\)"):
        classes.confusion(np.zeros((3, 2)), np.zeros(4, dtype=int))
