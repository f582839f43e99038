"""Decoupled distillation: its golden values, its decomposition of KD, and what it does with hard cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build
from kdrun.losses.base import kl_divergence, log_softened
from kdrun.losses.dkd import DKD, nckd, tckd
from kdrun.losses.kd import KD

from .given import ZS, ZT, Y, arguments, batch, node, outputs

TCKD, NCKD = 1.3971209659, 2.1226741093  # at T=4, each times T²

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, sizes, classes = st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 8)


def value(term: DKD, zs: Tensor = ZS, zt: Tensor = ZT, y: Tensor = Y, epoch: int = 99) -> float:
    return float(term(outputs(zs), outputs(zt), batch(y, epoch)))


def drawn(seed: int, n: int, c: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a student and of a teacher, (n, c), and labels."""
    generator = torch.Generator().manual_seed(seed)
    zs, zt = 5 * torch.randn(2, n, c, generator=generator, dtype=torch.float64)
    return zs, zt, torch.randint(c, (n,), generator=generator)


@pytest.mark.parametrize(
    ("alpha", "beta", "golden"), [(1, 0, TCKD), (0, 1, NCKD), (1, 8, 18.3785138403), (0.5, 2, TCKD / 2 + 2 * NCKD)]
)
def test_the_parts_and_their_sum_give_the_values_of_the_published_implementation(
    alpha: float, beta: float, golden: float
) -> None:
    assert value(DKD(T=4, alpha=alpha, beta=beta)) == pytest.approx(golden, rel=1e-9)


def test_the_yaml_is_the_published_setting() -> None:
    assert build({"dkd": node("dkd")})(outputs(ZS), [outputs(ZT)], batch(Y, 99))[0] == pytest.approx(18.3785138403)
    assert arguments("dkd")["beta"] == 8


@some
@given(seeds, sizes, classes, st.floats(0.3, 20))
def test_each_samples_kd_is_its_tckd_plus_its_nckd_as_far_as_the_teacher_doubts_the_target(
    seed: int, n: int, c: int, T: float
) -> None:
    zs, zt, y = drawn(seed, n, c)
    log_p_t, log_p_s = log_softened(zt, T), log_softened(zs, T)
    doubt = 1 - log_p_t.exp().gather(1, y[:, None]).squeeze(1)
    parts = tckd(log_p_t, log_p_s, y) + doubt * nckd(log_p_t, log_p_s, y)
    torch.testing.assert_close(parts, kl_divergence(log_p_t, log_p_s), rtol=1e-9, atol=1e-12)


@some
@given(seeds, sizes, classes)
def test_it_is_zero_for_a_student_that_equals_the_teacher_and_never_less(seed: int, n: int, c: int) -> None:
    zs, zt, y = drawn(seed, n, c)
    term = DKD(T=4)
    assert value(term, zt, zt, y) == pytest.approx(0, abs=1e-12)
    assert value(term, zt + 3, zt, y) == pytest.approx(0, abs=1e-12)
    assert value(term, zs, zt, y) >= -1e-12


@some
@given(seeds, sizes, classes)
def test_the_order_of_the_samples_and_the_names_of_the_classes_do_not_matter(seed: int, n: int, c: int) -> None:
    zs, zt, y = drawn(seed, n, c)
    rows, columns = torch.randperm(n), torch.randperm(c)
    renamed = torch.argsort(columns)[y[rows]]
    shuffled = value(DKD(T=4), zs[rows][:, columns], zt[rows][:, columns], renamed)
    assert shuffled == pytest.approx(value(DKD(T=4), zs, zt, y), rel=1e-9, abs=1e-12)


def test_of_two_classes_there_is_nothing_to_say_about_the_others() -> None:
    zs, zt, y = drawn(0, 6, 2)
    assert value(DKD(T=4, alpha=0, beta=8), zs, zt, y) == pytest.approx(0, abs=1e-12)
    assert value(DKD(T=4, beta=0), zs, zt, y) == pytest.approx(float(KD(T=4)(outputs(zs), outputs(zt), batch(y))))


def test_a_target_far_above_the_others_is_left_out_altogether() -> None:
    """Lowered by 1000, as in the published code, it would still be all that the others amount to."""
    zs, zt = torch.tensor([[5e3, 1.0, 0.0]]).double(), torch.tensor([[5e3, 0.0, 1.0]]).double()
    p = 1 / (1 + math.exp(-1))
    expected = p - (1 - p)  # p·log(p/(1 − p)) + (1 − p)·log((1 − p)/p), and log(p/(1 − p)) = 1
    assert value(DKD(T=1, alpha=0, beta=1), zs, zt, torch.tensor([0])) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("T", [0.1, 1.0, 4.0])
def test_logits_of_ten_thousand_give_finite_values_and_gradients_whichever_class_is_the_target(
    dtype: torch.dtype, T: float
) -> None:
    row = torch.tensor([1e4, -1e4, 0, 1e4], dtype=dtype)
    zs, zt = row.repeat(5, 1).requires_grad_(), torch.stack([row.roll(i) for i in range(5)])
    total = DKD(T=T)(outputs(zs), outputs(zt), batch(torch.tensor([0, 1, 2, 3, -1]), 99))
    total.backward()
    assert total.isfinite()
    assert zs.grad is not None and zs.grad.isfinite().all()


def test_unlabelled_samples_neither_count_nor_dilute_nor_get_a_gradient() -> None:
    zs = ZS.clone().requires_grad_()
    loss = DKD(T=4)(outputs(zs), outputs(ZT), batch(torch.tensor([0, -1, 2, -1]), 99))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(value(DKD(T=4), ZS[::2], ZT[::2], Y[::2]), rel=1e-12)
    assert zs.grad is not None
    assert zs.grad.abs().sum(1).bool().tolist() == [True, False, True, False]


def test_a_batch_without_labels_costs_nothing() -> None:
    assert value(DKD(T=4), y=torch.full((4,), -1)) == 0


@pytest.mark.parametrize(("epoch", "share"), [(0, 1 / 20), (9, 0.5), (19, 1), (20, 1), (239, 1)])
def test_the_loss_grows_over_twenty_epochs_from_a_twentieth_on(epoch: int, share: float) -> None:
    assert value(DKD(T=4), epoch=epoch) == pytest.approx(share * 18.3785138403, rel=1e-9)


def test_without_a_warm_up_the_first_epoch_counts_in_full() -> None:
    assert value(DKD(T=4, warmup_epochs=0), epoch=0) == pytest.approx(18.3785138403, rel=1e-9)


def test_gradients_are_those_of_finite_differences_an_unlabelled_sample_included() -> None:
    y = torch.tensor([3, -1, 0, 4])

    def loss(zs: Tensor) -> Tensor:
        return DKD(T=4).together(outputs(zs), [outputs(ZT)], [1.0], batch(y, 99))

    assert torch.autograd.gradcheck(loss, ZS.clone().requires_grad_())


@pytest.mark.parametrize(
    ("term", "formula"),
    [
        (DKD(T=4), "4²·min(epoch/20, 1)·[1·TCKD + 8·NCKD](p_t ‖ p_s; T=4)"),
        (DKD(T=4, beta=0.5, warmup_epochs=0), "4²·[1·TCKD + 0.5·NCKD](p_t ‖ p_s; T=4)"),
        (DKD(T=4, warmup_epochs=0, student_T=1), "[1·TCKD + 8·NCKD](p_t(T=4) ‖ p_s(T=1))"),
    ],
)
def test_the_formula_shows_every_number(term: DKD, formula: str) -> None:
    assert term.formula() == formula


@pytest.mark.parametrize("key", ["alpha", "beta", "warmup_epochs"])
@pytest.mark.parametrize("bad", [-1, math.nan, math.inf])
def test_a_number_below_zero_is_refused_by_its_name(key: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.dkd: {key} must be a finite number of at least 0, got {bad}"):
        build({"dkd": node("dkd") | {key: bad}})
