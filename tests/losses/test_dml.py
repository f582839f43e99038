"""Mutual learning: a mean of divergences from peers, none of which is moved by it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build
from kdrun.losses.dml import DML
from kdrun.losses.kd import KD

from .given import ZS, ZT, Y, batch, node, outputs

PEERS = (ZT, ZT.flip(1), ZS.flip(0))

some = settings(max_examples=25, deadline=None, derandomize=True)


def together(term: DML, zs: Tensor, peers: "tuple[Tensor, ...]", weights: list[float]) -> Tensor:
    return term.together(outputs(zs), [outputs(z) for z in peers], weights, batch(Y))


def test_two_peers_that_disagree_pull_in_both_directions() -> None:
    """80 to 20 and 20 to 80 against an undecided student: their mean would ask for nothing."""
    peers = tuple(torch.tensor([p], dtype=torch.float64).log() for p in ([0.8, 0.2], [0.2, 0.8]))
    loss = together(DML(T=1), torch.zeros(1, 2).double(), peers, [0.5, 0.5])
    assert float(loss) == pytest.approx(0.8 * math.log(1.6) + 0.2 * math.log(0.4), rel=1e-12)


def test_one_peer_costs_its_kl_whose_golden_value_is_that_of_kd_at_temperature_one() -> None:
    total, _ = build({"dml": node("dml")})(outputs(ZS), [outputs(ZT)], batch(Y))
    assert float(total) == pytest.approx(1.5071967295, rel=1e-8)


def test_the_peers_together_cost_the_weighted_mean_of_what_each_costs_alone() -> None:
    weights = [0.5, 0.3, 0.2]
    for T in (1.0, 2.0):
        alone = [float(KD(T)(outputs(ZS), outputs(peer), batch(Y))) for peer in PEERS]
        expected = sum(w * x for w, x in zip(weights, alone, strict=True))
        assert float(together(DML(T), ZS, PEERS, weights)) == pytest.approx(expected, rel=1e-12)


@some
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 7), st.integers(1, 4))
def test_it_is_zero_among_equals_never_less_and_deaf_to_shifts(seed: int, n: int, c: int, m: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    zs, *peers = 5 * torch.randn(m + 1, n, c, generator=generator, dtype=torch.float64)
    equal = [1 / m] * m
    assert float(together(DML(T=1), zs, (zs,) * m, equal)) == pytest.approx(0, abs=1e-12)
    loss = float(together(DML(T=1), zs, tuple(peers), equal))
    assert loss >= -1e-12
    assert float(together(DML(T=1), zs - 3, tuple(z + 7 for z in peers), equal)) == pytest.approx(loss, rel=1e-9)


def test_it_costs_at_least_the_divergence_from_the_peers_mean() -> None:
    equal = [1 / 3] * 3
    mean = KD(T=1).together(outputs(ZS), [outputs(z) for z in PEERS], equal, batch(Y))
    assert float(together(DML(T=1), ZS, PEERS, equal)) > float(mean)


def test_gradients_are_those_of_finite_differences_and_reach_no_peer() -> None:
    def loss(zs: Tensor) -> Tensor:
        return together(DML(T=2), zs, PEERS, [0.5, 0.3, 0.2])

    assert torch.autograd.gradcheck(loss, ZS.clone().requires_grad_())
    peers = tuple(z.clone().requires_grad_() for z in PEERS)
    torch.autograd.backward(together(DML(T=2), ZS.clone().requires_grad_(), peers, [0.5, 0.3, 0.2]))
    assert all(z.grad is None for z in peers)


def test_its_teachers_are_the_students_that_train_beside_it() -> None:
    objective = build({"dml": node("dml")})
    assert objective.peers and objective.needs_teacher and not objective.needs_labels
    assert not build({"kd": node("kd")}).peers


def test_the_formula_shows_every_number() -> None:
    assert DML(T=1).formula() == "mean_j KL(p_j ‖ p_s; T=1)"
    assert DML(T=2).formula() == "2²·mean_j KL(p_j ‖ p_s; T=2)"
    assert DML(T=4, student_T=2).formula() == "2²·mean_j KL(p_j(T=4) ‖ p_s(T=2))"
