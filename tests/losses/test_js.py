"""Jensen–Shannon: its golden values, its bound, and what it becomes at either end."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build
from kdrun.losses.base import kl_divergence
from kdrun.losses.js import JS, jensen_shannon

from .given import ZS, ZT, Y, arguments, batch, node, outputs

some = settings(max_examples=20, deadline=None, derandomize=True)
seeds, sizes, classes = st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 8)


def value(term: JS, zs: Tensor = ZS, zt: Tensor = ZT) -> float:
    return float(term(outputs(zs), outputs(zt), batch(Y)))


def drawn(seed: int, n: int, c: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a teacher and of a student, (n, c)."""
    zs, zt = 3 * torch.randn(2, n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return zt.log_softmax(1), zs.log_softmax(1)


@pytest.mark.parametrize(
    ("term", "golden"),
    [
        (JS(1), 0.3365776464),
        (JS(1, beta=0.1), 0.1262436492),
        (JS(1, beta=0.9), 0.1548374886),
        (JS(4, T_squared=False), 0.0449162672),
        (JS(4), 16 * 0.0449162672),
    ],
    ids=lambda case: case.formula() if isinstance(case, JS) else "",
)
def test_it_gives_the_values_of_the_published_implementation(term: JS, golden: float) -> None:
    assert value(term) == pytest.approx(golden, rel=1e-8)


def test_the_yaml_is_the_published_setting_and_alpha_weighs_it() -> None:
    assert (arguments("js")["T"], arguments("js")["beta"]) == (1, 0.5)
    assert node("js", alpha=0.7)["weight"] == 0.7


def test_two_classes_by_hand() -> None:
    """p = (0.8, 0.2) and q = (0.2, 0.8): m is (0.5, 0.5), and both divergences are the same."""
    p, q = torch.tensor([[0.8, 0.2]], dtype=torch.float64), torch.tensor([[0.2, 0.8]], dtype=torch.float64)
    expected = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert value(JS(1), q.log(), p.log()) == pytest.approx(expected, rel=1e-9)


@some
@given(seeds, sizes, classes, st.floats(0.01, 0.99))
def test_it_is_zero_for_the_teacher_itself_never_less_and_bounded_for_all_others(
    seed: int, n: int, c: int, beta: float
) -> None:
    p, q = drawn(seed, n, c)
    assert jensen_shannon(p, p, beta).abs().max() < 1e-12
    bound = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
    for student in (q, (1e4 * q).log_softmax(1)):
        assert jensen_shannon(p, student, beta).min() >= -1e-12
        assert jensen_shannon(p, student, beta).max() <= bound + 1e-12
    torch.testing.assert_close(jensen_shannon(p, q, beta), jensen_shannon(q, p, 1 - beta))


@some
@given(seeds, sizes, classes)
def test_it_goes_to_kl_and_reverse_kl_as_its_share_goes_to_its_ends(seed: int, n: int, c: int) -> None:
    p, q = drawn(seed, n, c)
    for near in (1e-6, 1e-8):
        torch.testing.assert_close(jensen_shannon(p, q, near) / near, kl_divergence(p, q), rtol=0.05, atol=1e-3)
        torch.testing.assert_close(jensen_shannon(p, q, 1 - near) / near, kl_divergence(q, p), rtol=0.05, atol=1e-3)
        assert jensen_shannon(p, q, near).max() < 100 * near  # itself it goes to 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [0.01, 0.5, 0.99])
def test_logits_of_ten_thousand_give_finite_values_and_gradients(dtype: torch.dtype, beta: float) -> None:
    row = torch.tensor([1e4, -1e4, 0, 1e4], dtype=dtype)
    zs = row.repeat(4, 1).requires_grad_()
    total = JS(1, beta)(outputs(zs), outputs(torch.stack([row.roll(i) for i in range(4)])), batch(Y))
    total.backward()
    assert total.isfinite()
    assert zs.grad is not None and zs.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences_and_reach_no_teacher() -> None:
    zt = ZT.clone().requires_grad_()

    def loss(zs: Tensor) -> Tensor:
        return JS(2, beta=0.3)(outputs(zs), outputs(zt), batch(Y))

    assert torch.autograd.gradcheck(loss, ZS.clone().requires_grad_())
    loss(ZS.clone().requires_grad_()).backward()
    assert zt.grad is None


def test_the_formula_shows_every_number() -> None:
    assert JS(4).formula() == "4²·JS(p_t, p_s; β=0.5; T=4)"
    assert JS(1, beta=0.1).formula() == "JS(p_t, p_s; β=0.1; T=1)"


@pytest.mark.parametrize("bad", [0, 1, -0.5, math.nan])
def test_a_share_at_an_end_or_beyond_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.js: beta must lie above 0 and below 1, got {bad}"):
        build({"js": node("js") | {"beta": bad}})
