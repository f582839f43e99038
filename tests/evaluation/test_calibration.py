"""Calibration, held against torchmetrics and against bins filled by hand."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from kdrun.evaluation.calibration import pooled, reliability


def drawn(seed, sharpness=1.0, n=500, c=6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(c, size=n)
    logits = rng.normal(size=(n, c))
    logits[np.arange(n), labels] += 1
    return (sharpness * logits).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("bins", [10, 15])
def test_ece_is_that_of_torchmetrics(seed, sharpness, bins):
    logits, labels = drawn(seed, sharpness)
    probabilities = torch.tensor(logits).double().softmax(1)
    expected = multiclass_calibration_error(probabilities, torch.tensor(labels), num_classes=6, n_bins=bins, norm="l1")
    assert reliability(logits, labels, bins).ece == pytest.approx(expected.item(), abs=1e-6)


def test_ece_by_hand():
    confidence = np.array([0.6, 0.6, 0.9, 0.9])
    logits = np.log(np.stack([confidence, 1 - confidence], axis=1))
    labels = np.array([0, 1, 0, 0])  # of the first two one is right, of the others both
    bins = reliability(logits, labels, bins=10)
    assert bins.count.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert bins.accuracy[[6, 9]].tolist() == [0.5, 1.0]
    assert bins.ece == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)


def test_a_certain_and_right_network_has_no_error_and_overconfidence_is_its_share_of_mistakes():
    labels = np.arange(10) % 2
    sure = 1000.0 * np.eye(2)[labels]
    assert reliability(sure, labels).ece == 0
    assert reliability(sure, 1 - labels).ece == 1
    mixed = np.where(np.arange(10) < 3, 1 - labels, labels)
    assert reliability(sure, mixed).ece == pytest.approx(0.3)


def test_pooled_bins_are_those_of_all_samples_together():
    parts = [drawn(seed) for seed in range(3)]
    together = reliability(np.concatenate([z for z, _ in parts]), np.concatenate([y for _, y in parts]))
    apart = pooled([reliability(*part) for part in parts])
    assert np.array_equal(apart.count, together.count)
    assert apart.accuracy == pytest.approx(together.accuracy, nan_ok=True)
    assert apart.ece == pytest.approx(together.ece)
