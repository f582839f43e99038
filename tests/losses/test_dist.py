"""DIST: its golden values, and what a correlation does and does not see."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build
from kdrun.losses.dist import DIST, row_pearson

from .given import ZS, ZT, Y, batch, node, outputs

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, sizes, classes = st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 8)


def value(term: DIST, zs: Tensor = ZS, zt: Tensor = ZT) -> float:
    return float(term(outputs(zs), outputs(zt), batch(Y)))


def drawn(seed: int, n: int, c: int) -> Tensor:
    """Logits of a student and of a teacher, (2, n, c)."""
    return torch.randn(2, n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("term", "golden"),
    [
        (DIST(T=1, beta=1, gamma=0), 1.2155368285),
        (DIST(T=1, beta=0, gamma=1), 1.2015403630),
        (DIST(T=1, beta=2, gamma=3), 2 * 1.2155368285 + 3 * 1.2015403630),
        (DIST(T=4), 32.7988016682),
        (DIST(T=4, T_squared=False), 32.7988016682 / 16),
    ],
    ids=lambda case: case.formula() if isinstance(case, DIST) else "",
)
def test_the_rows_the_columns_and_both_give_the_values_of_the_published_implementation(
    term: DIST, golden: float
) -> None:
    assert value(term) == pytest.approx(golden, rel=1e-8)


def test_the_yaml_is_the_published_setting_for_cifar() -> None:
    total, _ = build({"dist": node("dist")})(outputs(ZS), [outputs(ZT)], batch(Y))
    assert float(total) == pytest.approx(2 * 32.7988016682, rel=1e-8)


@some
@given(seeds, sizes, classes)
def test_the_correlation_of_rows_is_pearsons(seed: int, n: int, c: int) -> None:
    a, b = drawn(seed, n, c + 1)
    expected = torch.stack([torch.corrcoef(torch.stack(rows))[0, 1] for rows in zip(a, b, strict=True)])
    torch.testing.assert_close(row_pearson(a, b), expected, rtol=1e-5, atol=1e-5)


@some
@given(seeds, sizes, classes, st.floats(0.1, 10), st.floats(-10, 10))
def test_a_correlation_does_not_see_the_scale_or_the_mean_of_a_row(
    seed: int, n: int, c: int, scale: float, shift: float
) -> None:
    a, b = drawn(seed, n, c)
    torch.testing.assert_close(row_pearson(scale * a + shift, b), row_pearson(a, b), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(row_pearson(-a, b), -row_pearson(a, b))


@some
@given(seeds, sizes, classes)
def test_it_is_zero_for_a_student_that_equals_the_teacher_and_never_less(seed: int, n: int, c: int) -> None:
    zs, zt = drawn(seed, n, c)
    assert value(DIST(T=1), zt, zt) == pytest.approx(0, abs=1e-3)  # 1e-8 against the norms of nearly equal rows
    assert value(DIST(T=1), zs, zt) >= -1e-9


@some
@given(seeds, sizes, classes)
def test_the_order_of_the_samples_and_of_the_classes_does_not_matter(seed: int, n: int, c: int) -> None:
    zs, zt = drawn(seed, n, c)
    rows, columns = torch.randperm(n), torch.randperm(c)
    shuffled = value(DIST(T=4), zs[rows][:, columns], zt[rows][:, columns])
    assert shuffled == pytest.approx(value(DIST(T=4), zs, zt), rel=1e-9)


def test_rows_and_columns_trade_places_with_the_samples_and_the_classes() -> None:
    a, b = drawn(0, 4, 6).softmax(2)
    torch.testing.assert_close(row_pearson(a.T, b.T), row_pearson(a.T.contiguous(), b.T.contiguous()))
    assert row_pearson(a, b).shape == (4,)
    assert row_pearson(a.T, b.T).shape == (6,)


def test_a_class_that_is_never_likely_costs_its_column_and_gives_no_nan() -> None:
    zs = torch.tensor([[2.0, 0.0, -2e4], [0.0, 2.0, -2e4], [1.0, 0.0, -2e4]]).double().requires_grad_()
    loss = DIST(T=1, beta=0)(outputs(zs), outputs(zs.detach()), batch(Y[:3]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1 / 3, abs=1e-6)
    assert zs.grad is not None and zs.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences() -> None:
    def loss(zs: Tensor) -> Tensor:
        return DIST(T=4, beta=2, gamma=3).together(outputs(zs), [outputs(ZT)], [1.0], batch(Y))

    assert torch.autograd.gradcheck(loss, ZS.clone().requires_grad_())


def test_the_formula_shows_every_number() -> None:
    assert DIST(T=4).formula() == "4²·[1·(1 − ρ_rows) + 1·(1 − ρ_columns)](p_t, p_s; T=4)"
    assert DIST(T=1, beta=2).formula() == "[2·(1 − ρ_rows) + 1·(1 − ρ_columns)](p_t, p_s; T=1)"


@pytest.mark.parametrize("key", ["beta", "gamma"])
@pytest.mark.parametrize("bad", [-1, math.nan, math.inf])
def test_a_weight_below_zero_is_refused_by_its_name(key: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.dist: {key} must be a finite number of at least 0, got {bad}"):
        build({"dist": node("dist") | {key: bad}})
