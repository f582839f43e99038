"""The α-β divergence: its golden values, its relatives and limits, and that it has no seams between them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build
from kdrun.losses.abkd import ABKD, alpha_beta, mean_exp
from kdrun.losses.base import kl_divergence

from .given import ZS, ZT, Y, arguments, batch, node, outputs

some = settings(max_examples=20, deadline=None, derandomize=True)
seeds, sizes, classes = st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 8)
P, Q = ZT.log_softmax(1), ZS.log_softmax(1)


def value(term: ABKD, zs: Tensor = ZS, zt: Tensor = ZT) -> float:
    return float(term(outputs(zs), outputs(zt), batch(Y)))


def drawn(seed: int, n: int, c: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a teacher and of a student, (n, c)."""
    zs, zt = 3 * torch.randn(2, n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return zt.log_softmax(1), zs.log_softmax(1)


def published(log_p: Tensor, log_q: Tensor, a: float, b: float) -> Tensor:
    """Cichocki et al.'s definition, and their limits where an exponent is 0, as they stand."""
    p, q = log_p.exp(), log_q.exp()
    if a == b == 0:
        each = 0.5 * (log_p - log_q) ** 2
    elif b == 0:
        each = (p**a * a * (log_p - log_q) - p**a + q**a) / a**2
    elif a == 0:
        each = (q**b * b * (log_q - log_p) - q**b + p**b) / b**2
    elif a + b == 0:
        each = (a * (log_q - log_p) + (p / q) ** a - 1) / a**2
    else:
        each = p ** (a + b) / (b * (a + b)) + q ** (a + b) / (a * (a + b)) - p**a * q**b / (a * b)
    return each.sum(1)


@pytest.mark.parametrize(
    ("term", "golden"),
    [
        (ABKD(1, 1, 0.5), 0.6534723176),
        (ABKD(1, 0.5, 0.5), 1.5491711526),
        (ABKD(1, 1, 1), 0.3281141220),
        (ABKD(1, 1.2, -0.3), 1.9650167343),
        (ABKD(4, 1, 0.5, T_squared=False), 0.0802713968),
        (ABKD(1, 1, 0), 1.5071967295),  # kd's
        (ABKD(4, 1, 0), 2.8564529605),
        (ABKD(1, 0, 1), 2.2731645867),  # reverse_kd's
        (ABKD(4, 0, 1), 3.0435663557),
    ],
    ids=lambda case: case.formula() if isinstance(case, ABKD) else "",
)
def test_it_gives_the_values_of_the_published_implementation(term: ABKD, golden: float) -> None:
    assert value(term) == pytest.approx(golden, rel=1e-8)


def test_the_yaml_is_the_published_command_for_cifar() -> None:
    """Weight 32 without a factor."""
    chosen = node("abkd")
    assert (arguments("abkd")["alpha"], arguments("abkd")["beta"], arguments("abkd")["T"]) == (0.8, 0.3, 4)
    total, _ = build({"abkd": chosen})(outputs(ZS), [outputs(ZT)], batch(Y))
    p, q = (ZT / 4).log_softmax(1), (ZS / 4).log_softmax(1)
    assert float(total) == pytest.approx(32 * float(published(p, q, 0.8, 0.3).mean()), rel=1e-9)
    assert "hard_weight" not in chosen  # so that the labels weigh 1


@some
@given(seeds, sizes, classes, st.floats(-0.9, 2), st.floats(-0.9, 2))
def test_it_is_the_published_definition_and_trades_its_exponents_for_its_sides(
    seed: int, n: int, c: int, a: float, b: float
) -> None:
    p, q = drawn(seed, n, c)
    if a + b < 0:
        a, b = -a, -b
    if min(abs(a), abs(b), a + b) > 0.01:  # nearer the definition itself is rounding
        torch.testing.assert_close(alpha_beta(p, q, a, b), published(p, q, a, b), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alpha_beta(p, q, a, b), alpha_beta(q, p, b, a), rtol=1e-9, atol=1e-12)
    assert alpha_beta(p, q, a, b).min() >= -1e-12
    assert alpha_beta(p, p, a, b).abs().max() < 1e-12


@pytest.mark.parametrize(("a", "b"), [(0.02, 0.03), (0.02, 1), (1, -0.02), (0.03, -0.02)])
def test_small_exponents_are_not_taken_for_zero(a: float, b: float) -> None:
    torch.testing.assert_close(alpha_beta(P, Q, a, b), published(P, Q, a, b), rtol=1e-8, atol=1e-10)


def test_the_mean_of_the_exponential_has_no_seam_and_a_gradient_at_zero() -> None:
    x = torch.tensor([0, 1e-8, -9.9e-3, 9.9e-3, 1.01e-2, -1, 40], dtype=torch.float64).requires_grad_()
    values = mean_exp(x)
    values.sum().backward()
    expected = [1] + [math.expm1(at) / at for at in x.tolist()[1:]]
    assert values.tolist() == pytest.approx(expected, rel=1e-14)
    assert x.grad is not None
    assert x.grad[:2].tolist() == pytest.approx([0.5, 0.5], rel=1e-7)


@some
@given(seeds, sizes, classes)
def test_its_relatives_are_those_of_the_docstring(seed: int, n: int, c: int) -> None:
    p, q = drawn(seed, n, c)
    torch.testing.assert_close(alpha_beta(p, q, 1, 0), kl_divergence(p, q))
    torch.testing.assert_close(alpha_beta(p, q, 0, 1), kl_divergence(q, p))
    torch.testing.assert_close(alpha_beta(p, q, 1, 1), 0.5 * (p.exp() - q.exp()).square().sum(1))
    hellinger = 0.5 * ((p / 2).exp() - (q / 2).exp()).square().sum(1)
    torch.testing.assert_close(alpha_beta(p, q, 0.5, 0.5), 4 * hellinger)
    torch.testing.assert_close(alpha_beta(p, q, 0, 0), 0.5 * (p - q).square().sum(1))


@pytest.mark.parametrize(("a", "b"), [(1, 0), (0, 1), (0.7, 0), (0, 0.4), (0.6, -0.6), (-0.6, 0.6), (0, 0)])
@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (1, 1)])
def test_it_goes_to_the_published_limits_without_a_jump_in_value_or_gradient(
    a: float, b: float, direction: tuple[float, float]
) -> None:
    limit = published(P, Q, a, b)
    torch.testing.assert_close(alpha_beta(P, Q, a, b), limit, rtol=1e-9, atol=1e-12)
    exact = gradient(a, b, torch.float64)
    for near in (1e-2, 1.1e-3, 0.9e-3, 1e-4, 1e-6, 1e-9):
        there = a + near * direction[0], b + near * direction[1]
        torch.testing.assert_close(alpha_beta(P, Q, *there), limit, rtol=8 * near, atol=1e-9)
        torch.testing.assert_close(gradient(*there, torch.float64), exact, rtol=8 * near, atol=25 * near)
        torch.testing.assert_close(
            gradient(*there, torch.float32).double(), exact, rtol=8 * near, atol=25 * near + 2e-4
        )


def gradient(a: float, b: float, dtype: torch.dtype) -> Tensor:
    zs = ZS.to(dtype).clone().requires_grad_()
    alpha_beta(ZT.to(dtype).log_softmax(1), zs.log_softmax(1), a, b).sum().backward()
    assert zs.grad is not None
    return zs.grad


@pytest.mark.parametrize(("a", "b"), [(0.8, 0.3), (1, 0), (0, 1), (1e-4, 1), (1, 1e-4)])
def test_float32_follows_float64_where_student_and_teacher_are_alike(a: float, b: float) -> None:
    near = ZT + 1e-3 * ZS
    exact = alpha_beta(P, near.log_softmax(1), a, b)
    rough = alpha_beta(ZT.float().log_softmax(1), near.float().log_softmax(1), a, b)
    torch.testing.assert_close(rough.double(), exact, rtol=0.05, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("a", "b"), [(0.8, 0.3), (1, 0), (0, 1), (0.5, 0.5), (1, 1e-4), (0, 0)])
def test_logits_of_ten_thousand_give_finite_values_and_gradients(dtype: torch.dtype, a: float, b: float) -> None:
    row = torch.tensor([1e4, -1e4, 0, 1e4], dtype=dtype)
    zs = row.repeat(4, 1).requires_grad_()
    total = ABKD(1, a, b)(outputs(zs), outputs(torch.stack([row.roll(i) for i in range(4)])), batch(Y))
    total.backward()
    assert total.isfinite()
    assert zs.grad is not None and zs.grad.isfinite().all()


@pytest.mark.parametrize(("a", "b"), [(0.8, 0.3), (1.2, -0.3), (1, 0), (0.5, -0.5)])
def test_gradients_are_those_of_finite_differences_also_at_the_teacher_itself_and_reach_no_teacher(
    a: float, b: float
) -> None:
    zt = ZT.clone().requires_grad_()

    def loss(zs: Tensor) -> Tensor:
        return ABKD(2, a, b)(outputs(zs), outputs(zt), batch(Y))

    assert torch.autograd.gradcheck(loss, ZS.clone().requires_grad_(), fast_mode=True)
    alike = ZT.clone().requires_grad_()
    loss(alike).backward()
    assert zt.grad is None
    assert alike.grad is not None
    assert alike.grad.abs().max() < 1e-12


def test_the_formula_shows_every_number() -> None:
    assert ABKD(4).formula() == "4²·D_αβ(p_t, p_s; α=0.8, β=0.3; T=4)"
    assert ABKD(1, 1.2, -0.3).formula() == "D_αβ(p_t, p_s; α=1.2, β=-0.3; T=1)"


@pytest.mark.parametrize("key", ["alpha", "beta"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_exponent_that_is_not_finite_is_refused_by_its_name(key: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.abkd: {key} must be a finite number, got {bad}"):
        build({"abkd": node("abkd") | {key: bad}})


def test_exponents_whose_sum_is_negative_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^loss\.abkd: alpha \+ beta must be at least 0, got 0\.2 \+ -0\.3"):
        build({"abkd": node("abkd") | {"alpha": 0.2, "beta": -0.3}})
