"""NKD: its golden values, its minimum, and what it does with labels, one class and large logits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build
from kdrun.losses.base import log_softened
from kdrun.losses.dkd import nckd
from kdrun.losses.nkd import NKD, others_cross_entropy, target_cross_entropy

from .given import ZS, ZT, Y, arguments, batch, node, outputs

some = settings(max_examples=20, deadline=None, derandomize=True)
seeds, sizes, classes = st.integers(0, 10**6), st.integers(1, 6), st.integers(3, 8)


def value(term: NKD, zs: Tensor = ZS, zt: Tensor = ZT, y: Tensor = Y) -> float:
    return float(term(outputs(zs), outputs(zt), batch(y)))


def drawn(seed: int, n: int, c: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a student and of a teacher, (n, c), and labels."""
    generator = torch.Generator().manual_seed(seed)
    zs, zt = 3 * torch.randn(2, n, c, generator=generator, dtype=torch.float64)
    return zs, zt, torch.randint(c, (n,), generator=generator)


@pytest.mark.parametrize(("T", "golden"), [(1, 3.7525412103), (4, 35.1143821000)])
def test_it_gives_the_values_of_the_published_implementation(T: float, golden: float) -> None:
    assert value(NKD(T)) == pytest.approx(golden, rel=1e-9)


def test_the_yaml_is_the_published_setting_for_imagenet() -> None:
    total, _ = build({"nkd": node("nkd")})(outputs(ZS), [outputs(ZT)], batch(Y))
    assert float(total) == pytest.approx(3.7525412103, rel=1e-9)
    assert (arguments("nkd")["T"], arguments("nkd")["gamma"], node("nkd")["weight"]) == (1, 1.5, 1)
    assert "hard_weight" not in node("nkd")  # so that the labels weigh 1


def test_three_classes_by_hand() -> None:
    """The others of p are 3/4 and 1/4 of what the label leaves, of q half each."""
    p, q = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64), torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    assert value(NKD(1, gamma=0), q.log(), p.log(), Y[:1]) == pytest.approx(0.6 * math.log(2), rel=1e-9)
    assert value(NKD(1, gamma=2), q.log(), p.log(), Y[:1]) == pytest.approx(2.6 * math.log(2), rel=1e-9)


@some
@given(seeds, sizes, classes, st.floats(0.3, 10))
def test_the_others_are_those_of_dkd_by_cross_entropy(seed: int, n: int, c: int, T: float) -> None:
    zs, zt, y = drawn(seed, n, c)
    log_p_t, log_p_s = log_softened(zt, T), log_softened(zs, T)
    entropy = others_cross_entropy(log_p_t, log_p_t, y)
    torch.testing.assert_close(others_cross_entropy(log_p_t, log_p_s, y) - entropy, nckd(log_p_t, log_p_s, y))


@some
@given(seeds, sizes, classes)
def test_the_least_is_the_entropy_of_the_others_where_the_label_is_certain(seed: int, n: int, c: int) -> None:
    zs, zt, y = drawn(seed, n, c)
    log_p = log_softened(zt, 2)
    least = 1.5 * 4 * float(others_cross_entropy(log_p, log_p, y).mean())
    certain = zt.scatter_add(1, y[:, None], torch.full((n, 1), 100.0).double())
    assert value(NKD(2), certain, zt, y) == pytest.approx(least, rel=1e-9, abs=1e-12)
    assert value(NKD(2), zs, zt, y) >= least - 1e-12
    assert value(NKD(2), zt, zt, y) == pytest.approx(
        least + float(target_cross_entropy(zt.log_softmax(1), zt.log_softmax(1), y).mean()), rel=1e-9
    )


def test_the_labels_class_is_compared_at_one_whatever_the_temperatures() -> None:
    at_one = value(NKD(1, gamma=0))
    assert value(NKD(4, gamma=0)) == value(NKD(9, gamma=0, teacher_T=2, student_T=3)) == pytest.approx(at_one)
    others = value(NKD(4)) - at_one
    assert value(NKD(4, T_squared=False)) == pytest.approx(at_one + others / 16, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("T", [0.1, 4.0])
def test_logits_of_ten_thousand_give_finite_values_and_gradients_whichever_class_is_the_target(
    dtype: torch.dtype, T: float
) -> None:
    row = torch.tensor([1e4, -1e4, 0, 1e4], dtype=dtype)
    zs, zt = row.repeat(5, 1).requires_grad_(), torch.stack([row.roll(i) for i in range(5)])
    total = NKD(T)(outputs(zs), outputs(zt), batch(torch.tensor([0, 1, 2, 3, -1])))
    total.backward()
    assert total.isfinite()
    assert zs.grad is not None and zs.grad.isfinite().all()


def test_unlabelled_samples_neither_count_nor_dilute_nor_get_a_gradient() -> None:
    zs = ZS.clone().requires_grad_()
    loss = NKD(1)(outputs(zs), outputs(ZT), batch(torch.tensor([0, -1, 2, -1])))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(value(NKD(1), ZS[::2], ZT[::2], Y[::2]), rel=1e-12)
    assert zs.grad is not None
    assert zs.grad.abs().sum(1).bool().tolist() == [True, False, True, False]
    assert value(NKD(1), y=torch.full((4,), -1)) == 0


def test_gradients_are_those_of_finite_differences_and_reach_no_teacher() -> None:
    zt = ZT.clone().requires_grad_()

    def loss(zs: Tensor) -> Tensor:
        return NKD(4)(outputs(zs), outputs(zt), batch(torch.tensor([3, -1, 0, 4])))

    assert torch.autograd.gradcheck(loss, ZS.clone().requires_grad_())
    loss(ZS.clone().requires_grad_()).backward()
    assert zt.grad is None


@pytest.mark.parametrize(
    ("term", "formula"),
    [
        (NKD(1), "[−p_t,y·log p_s,y + 1.5·CE(p̂_t, p̂_s; T=1)]"),
        (NKD(4, gamma=2), "[−p_t,y·log p_s,y + 2·4²·CE(p̂_t, p̂_s; T=4)]"),
        (NKD(4, student_T=2), "[−p_t,y·log p_s,y + 1.5·2²·CE(p̂_t(T=4), p̂_s(T=2))]"),
    ],
)
def test_the_formula_shows_every_number(term: NKD, formula: str) -> None:
    assert term.formula() == formula


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf])
def test_a_gamma_below_zero_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.nkd: gamma must be a finite number of at least 0, got {bad}"):
        build({"nkd": node("nkd") | {"gamma": bad}})
