"""Numbers from logits, held against scikit-learn, torchmetrics and scipy."""

import numpy as np
import pytest
import torch
import torchmetrics.functional as tm
from scipy.special import rel_entr, softmax
from sklearn.metrics import accuracy_score, log_loss

from kdrun.evaluation.accuracy import accuracy, correct, nll
from kdrun.evaluation.fidelity import agreement, divergence

RANDOM = np.random.default_rng(3)
LOGITS = RANDOM.normal(0, 3, (200, 7)).astype(np.float32)
OTHER = (LOGITS + RANDOM.normal(0, 2, LOGITS.shape)).astype(np.float32)
LABELS = np.where(RANDOM.random(200) < 0.7, LOGITS.argmax(1), RANDOM.integers(0, 7, 200))


def test_accuracy_is_scikit_learns_and_torchmetrics():
    assert 0.6 < accuracy(LOGITS, LABELS) < 0.9
    assert accuracy(LOGITS, LABELS) == accuracy_score(LABELS, LOGITS.argmax(1))
    theirs = tm.accuracy(torch.from_numpy(LOGITS), torch.from_numpy(LABELS), task="multiclass", num_classes=7)
    assert accuracy(LOGITS, LABELS) == pytest.approx(theirs.item())


def test_of_equal_logits_the_first_class_counts():
    assert correct(np.zeros((3, 4)), np.array([0, 1, 3])).tolist() == [True, False, False]


def test_nll_is_scikit_learns_log_loss_and_torchs_cross_entropy():
    assert nll(LOGITS, LABELS) == pytest.approx(log_loss(LABELS, softmax(LOGITS.astype(float), 1)), rel=1e-6)
    theirs = torch.nn.functional.cross_entropy(torch.from_numpy(LOGITS).double(), torch.from_numpy(LABELS))
    assert nll(LOGITS, LABELS) == pytest.approx(theirs.item(), rel=1e-12)


def test_a_confident_mistake_stays_a_finite_number():
    assert nll(np.array([[1000.0, 0.0]], dtype=np.float32), np.array([1])) == 1000.0


def test_agreement_is_the_accuracy_against_the_teachers_choices():
    assert 0.3 < agreement(OTHER, LOGITS) < 0.95
    assert agreement(OTHER, LOGITS) == accuracy_score(LOGITS.argmax(1), OTHER.argmax(1))
    assert agreement(LOGITS, LOGITS) == 1.0


def test_kl_to_the_teacher_is_scipys_with_the_teacher_first():
    student, teacher = softmax(OTHER.astype(float), 1), softmax(LOGITS.astype(float), 1)
    expected = rel_entr(teacher, student).sum(1).mean()
    assert divergence(OTHER, LOGITS) == pytest.approx(expected, rel=1e-9)
    theirs = tm.kl_divergence(torch.from_numpy(teacher), torch.from_numpy(student))  # KL of the first from the second
    assert divergence(OTHER, LOGITS) == pytest.approx(theirs.item(), rel=1e-9)
    assert divergence(LOGITS, OTHER) != pytest.approx(expected, rel=0.01)


def test_kl_of_a_network_to_itself_is_nil_and_of_sure_ones_finite():
    assert divergence(LOGITS, LOGITS) == 0.0
    assert divergence(np.array([[0.0, 2000.0]]), np.array([[2000.0, 0.0]])) == 2000.0


@pytest.mark.parametrize("measure", [agreement, divergence])
def test_networks_over_other_samples_or_classes_are_refused(measure):
    with pytest.raises(ValueError, match=r"\(200, 7\) and teacher logits \(199, 7\)"):
        measure(LOGITS, LOGITS[1:])
    with pytest.raises(ValueError, match=r"not of the same samples"):
        measure(LOGITS, LOGITS[:, :6])


@pytest.mark.parametrize("measure", [accuracy, nll, correct])
def test_labels_of_another_length_are_refused(measure):
    with pytest.raises(ValueError, match=r"logits \(200, 7\) and labels \(199,\)"):
        measure(LOGITS, LABELS[1:])


@pytest.mark.parametrize("label", [-1, 7])
def test_nll_of_a_label_that_names_no_class_is_refused(label):
    labels = LABELS.copy()
    labels[5] = label
    with pytest.raises(ValueError, match="do not name one of 7 classes"):
        nll(LOGITS, labels)
