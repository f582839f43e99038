"""The hard term."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from kdrun.losses.base import Setting
from kdrun.losses.ce import CE, balanced

from .given import ZS, Y, batch, outputs


def test_cross_entropy_gives_the_golden_value_without_a_teacher() -> None:
    assert float(CE()(outputs(ZS), None, batch(Y))) == pytest.approx(3.1347706165, rel=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing_is_torchs(smoothing: float) -> None:
    expected = F.cross_entropy(ZS, Y, label_smoothing=smoothing)
    assert float(CE(smoothing)(outputs(ZS), None, batch(Y))) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_unlabelled_samples_neither_count_nor_dilute_nor_get_a_gradient(smoothing: float) -> None:
    zs = ZS.clone().requires_grad_()
    loss = CE(smoothing)(outputs(zs), None, batch(torch.tensor([0, -1, 2, -1])))
    loss.backward()
    expected = F.cross_entropy(ZS[::2], Y[::2], label_smoothing=smoothing)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-12)
    assert zs.grad is not None
    assert zs.grad.abs().sum(1).bool().tolist() == [True, False, True, False]


def test_a_batch_without_labels_costs_nothing_and_moves_nothing() -> None:
    zs = ZS.clone().requires_grad_()
    loss = CE(0.1)(outputs(zs), None, batch(torch.full((4,), -1)))
    loss.backward()
    assert float(loss.detach()) == 0
    assert zs.grad is not None
    assert zs.grad.abs().max() == 0


def test_nothing_waits_for_the_device() -> None:
    """Tensors without data: whatever asked one for its value would raise."""
    assert CE(0.1)(outputs(ZS.to("meta")), None, batch(Y.to("meta"))).shape == ()


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_label_smoothing_outside_its_range_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing must be between 0 and 1"):
        CE(bad)


def test_the_formula_names_the_smoothing_only_where_there_is_some() -> None:
    assert CE().formula() == "CE(y, p_s)"
    assert CE(0.1).formula() == "CE(y, p_s; ε=0.1)"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_balanced_classes_are_scikit_learns_and_their_mean_is_torchs(smoothing: float) -> None:
    labels = torch.tensor([0] * 7 + [1] * 2 + [2] + [3] * 5 + [4] * 3 + [-1] * 4)
    known = labels[labels >= 0].numpy()
    weights = compute_class_weight("balanced", classes=np.arange(5), y=known)
    assert balanced(labels, 5).tolist() == pytest.approx(weights.tolist())
    term = CE(smoothing, "balanced")
    term.prepare(outputs(ZS), None, Setting(len(labels), 4, labels))
    indices = torch.tensor([0, 1, -1, 3])
    expected = F.cross_entropy(ZS, indices, torch.tensor(weights), ignore_index=-1, label_smoothing=smoothing)
    assert float(term(outputs(ZS), None, batch(indices))) == pytest.approx(float(expected), rel=1e-6)
    assert float(term(outputs(ZS), None, batch(torch.full((4,), -1)))) == 0
    assert "balanced classes" in term.formula() and not term.state_dict()  # made anew from the labels


def test_a_class_without_images_weighs_nothing() -> None:
    assert balanced(torch.tensor([0, 0, 2, 2]), 4).tolist() == [1, 0, 1, 0]
