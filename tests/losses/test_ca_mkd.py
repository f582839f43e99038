"""CA-MKD: each sample's own weights for the teachers, by how wrong each is on it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build
from kdrun.losses.base import Heard
from kdrun.losses.ca_mkd import CAMKD, confidences
from kdrun.losses.kd import KD

from .given import ZS, ZT, Y, batch, node, outputs

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, sizes, classes, counts = st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 7), st.integers(2, 5)


def drawn(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def together(term: CAMKD, zs: Tensor, teachers: Tensor, y: Tensor, weights: list[float] | None = None) -> Tensor:
    equal = [1 / len(teachers)] * len(teachers)
    return term.together(outputs(zs), [outputs(z) for z in teachers], weights or equal, batch(y))


def test_of_two_teachers_the_one_with_the_smaller_error_is_heard_more() -> None:
    """80% against 50% for the right class: exp(CE) is 1.25 and 2, so the weights are 8/13 and 5/13."""
    log_p = torch.tensor([[[0.8, 0.2]], [[0.5, 0.5]]], dtype=torch.float64).log()
    right = torch.tensor([0])
    assert confidences(log_p, right)[:, 0].tolist() == pytest.approx([8 / 13, 5 / 13])
    kl = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    loss = together(CAMKD(T=1), torch.zeros(1, 2).double(), log_p, right)
    assert float(loss) == pytest.approx(8 / 13 * kl, rel=1e-12)


def test_three_teachers_share_what_is_not_their_error() -> None:
    log_p = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]], [[0.1, 0.9]]], dtype=torch.float64).log()
    doubts = [2 / 16, 4 / 16, 10 / 16]
    assert confidences(log_p, torch.tensor([0]))[:, 0].tolist() == pytest.approx([(1 - d) / 2 for d in doubts])


@some
@given(seeds, counts, sizes, classes)
def test_the_weights_of_each_sample_are_its_own_and_sum_to_one(seed: int, k: int, n: int, c: int) -> None:
    log_p = drawn(seed, k, n, c).log_softmax(2)
    y = drawn(seed, n, c).argmax(1)
    w = confidences(log_p, y)
    assert w.shape == (k, n)
    assert w.min() >= 0
    torch.testing.assert_close(w.sum(0), torch.ones(n).double())
    alone = torch.cat([confidences(log_p[:, i : i + 1], y[i : i + 1]) for i in range(n)], dim=1)
    torch.testing.assert_close(w, alone)


@some
@given(seeds, counts, sizes, classes)
def test_it_is_zero_for_a_student_that_equals_its_teachers_never_less_and_deaf_to_shifts(
    seed: int, k: int, n: int, c: int
) -> None:
    zs, *teachers = drawn(seed, k + 1, n, c)
    given, y = torch.stack(teachers), zs.argmax(1)
    assert float(together(CAMKD(T=4), zs, zs.repeat(k, 1, 1), y)) == pytest.approx(0, abs=1e-12)
    loss = float(together(CAMKD(T=4), zs, given, y))
    assert loss >= -1e-12
    assert float(together(CAMKD(T=4), zs + 2, given - 5, y)) == pytest.approx(loss, rel=1e-9)
    order = torch.randperm(k)
    assert float(together(CAMKD(T=4), zs, given[order], y)) == pytest.approx(loss, rel=1e-9)


def test_one_teacher_is_plain_distillation() -> None:
    total, _ = build({"ca_mkd": node("ca_mkd")})(outputs(ZS), [outputs(ZT)], batch(Y))
    assert float(total) == pytest.approx(2.8564529605, rel=1e-8)
    assert float(together(CAMKD(T=4), ZS, ZT[None], Y)) == pytest.approx(2.8564529605, rel=1e-8)


def test_unlabelled_samples_hear_all_teachers_alike() -> None:
    teachers = torch.stack([ZT, ZT.flip(1), ZS.flip(0)])
    none = torch.full((4,), -1)
    alone = [float(KD(T=4)(outputs(ZS), outputs(z), batch(none))) for z in teachers]
    assert float(together(CAMKD(T=4), ZS, teachers, none)) == pytest.approx(sum(alone) / 3, rel=1e-12)
    weighted = float(together(CAMKD(T=4), ZS, teachers, none, [0.5, 0.3, 0.2]))
    assert weighted == pytest.approx(0.5 * alone[0] + 0.3 * alone[1] + 0.2 * alone[2], rel=1e-12)
    mixed = confidences(teachers.log_softmax(2), torch.tensor([0, -1, 2, -1]))
    assert mixed[:, 1::2].flatten().tolist() == pytest.approx([1 / 3] * 6)
    torch.testing.assert_close(mixed[:, ::2], confidences(teachers.log_softmax(2), Y)[:, ::2])


def test_configured_weights_multiply_each_samples_own() -> None:
    log_p = torch.tensor([[[0.8, 0.2]], [[0.5, 0.5]]], dtype=torch.float64).log()
    kl = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    loss = together(CAMKD(T=1), torch.zeros(1, 2).double(), log_p, torch.tensor([0]), [0.2, 0.8])
    assert float(loss) == pytest.approx(0.2 * 8 / (0.2 * 8 + 0.8 * 5) * kl, rel=1e-12)


def test_the_objective_gives_it_all_the_teachers_it_hears() -> None:
    heard = {"teachers": [0, 2], "weights": [0.5, 0.5]}
    objective = build({"ca_mkd": node("ca_mkd") | {"heard": heard}})
    assert objective.heard["ca_mkd"] == Heard((0, 2), (0.5, 0.5))
    teachers = [outputs(z) for z in (ZT, torch.full_like(ZT, math.nan), ZT.flip(1))]
    total, _ = objective(outputs(ZS), teachers, batch(Y))
    assert float(total) == pytest.approx(float(together(CAMKD(T=4), ZS, torch.stack([ZT, ZT.flip(1)]), Y)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_teachers_that_are_certain_and_wrong_give_finite_values_and_gradients(dtype: torch.dtype) -> None:
    sure = 1e4 * torch.eye(4, dtype=dtype)
    zs = sure.clone().requires_grad_()
    loss = together(CAMKD(T=1), zs, torch.stack([sure.roll(1, 0), sure.roll(2, 0), sure.roll(3, 0)]), Y)
    torch.autograd.backward(loss)
    assert loss.isfinite()
    assert zs.grad is not None and zs.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences_and_reach_no_teacher() -> None:
    teachers = torch.stack([ZT, ZT.flip(1), ZS.flip(0)]).requires_grad_()

    def loss(zs: Tensor) -> Tensor:
        return together(CAMKD(T=4), zs, teachers, torch.tensor([0, -1, 2, 3]))

    assert torch.autograd.gradcheck(loss, ZS.clone().requires_grad_())
    torch.autograd.backward(loss(ZS.clone().requires_grad_()))
    assert teachers.grad is None


def test_the_formula_shows_every_number() -> None:
    assert CAMKD(T=4).formula() == "4²·[Σ_k w_k·KL(p_k ‖ p_s; T=4)]"
