"""The five terms that compare the teacher's and the student's answers: kd, reverse_kd, soft_ce, mse_*."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build
from kdrun.losses.base import SoftTerm, Term, log_softened
from kdrun.losses.kd import KD
from kdrun.losses.mse_logits import LogitMSE
from kdrun.losses.mse_probs import ProbabilityMSE
from kdrun.losses.reverse_kd import ReverseKD
from kdrun.losses.soft_ce import SoftCE

from .given import ZS, ZT, Y, batch, node, outputs

SOFT = (KD, ReverseKD, SoftCE, ProbabilityMSE)


def value(term: Term, zs: Tensor = ZS, zt: Tensor = ZT) -> float:
    return float(term(outputs(zs), outputs(zt), batch(Y)))


@pytest.mark.parametrize(
    ("term", "golden"),
    [
        (KD(T=1), 1.5071967295),
        (KD(T=2), 2.3474689044),
        (KD(T=4), 2.8564529605),
        (KD(T=9, teacher_T=4, student_T=1), 0.8507274158),
        (ReverseKD(T=1), 2.2731645867),
        (ReverseKD(T=2), 2.8272880665),
        (ReverseKD(T=4), 3.0435663557),
        (SoftCE(T=2), 7.2254282423),
        (ProbabilityMSE(T=1), 0.1312456488),
        (ProbabilityMSE(T=2, T_squared=False), 0.0500040492),
        (ProbabilityMSE(T=4, T_squared=False), 0.0147030494),
        (ProbabilityMSE(T=4), 16 * 0.0147030494),
        (LogitMSE(), 6.5853032885),
    ],
    ids=lambda case: case.formula() if isinstance(case, Term) else "",
)
def test_a_term_gives_the_value_of_its_published_implementation(term: Term, golden: float) -> None:
    assert value(term) == pytest.approx(golden, rel=1e-8)


@pytest.mark.parametrize(("T", "divergence"), [(1, 0.0257), (2, 0.0083), (0.5, 0.0446)])
def test_the_divergence_of_a_teacher_at_80_to_20_from_a_student_at_70_to_30(T: float, divergence: float) -> None:
    teacher, student = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.7, 0.3]]).log()
    term = KD(T, T_squared=False)
    assert float(term(outputs(student), outputs(teacher), batch(Y[:1]))) == pytest.approx(divergence, abs=5e-5)


@pytest.mark.parametrize(("T", "softened"), [(2, [0.667, 0.333]), (0.5, [0.941, 0.059])])
def test_a_temperature_above_one_softens_and_one_below_hardens(T: float, softened: list[float]) -> None:
    p = log_softened(torch.tensor([[0.8, 0.2]]).log(), T).exp()
    assert p[0].tolist() == pytest.approx(softened, abs=5e-4)


@pytest.mark.parametrize(
    ("T", "expected"), [(1, [7.3e-7, 8.0e-4, 0.119, 0.880]), (3, [0.0058, 0.0599, 0.3170, 0.6174])]
)
def test_cat_dog_donkey_and_horse_soften_as_in_the_textbook_example(T: float, expected: list[float]) -> None:
    p = log_softened(torch.tensor([[-5.0, 2.0, 7.0, 9.0]]), T).exp()
    assert p[0].tolist() == pytest.approx(expected, rel=8e-3)


def logits(n: int = 3, c: int = 4) -> st.SearchStrategy[Tensor]:
    row = st.lists(st.floats(-30, 30), min_size=c, max_size=c)
    return st.lists(row, min_size=n, max_size=n).map(lambda rows: torch.tensor(rows, dtype=torch.float64))


temperatures = st.floats(0.2, 20)
some = settings(max_examples=60, deadline=None, derandomize=True)


@some
@given(logits(), logits(), temperatures)
def test_kd_is_torchs_kl_divergence_with_the_batch_mean(zs: Tensor, zt: Tensor, T: float) -> None:
    log_p, log_q = F.log_softmax(zt / T, 1), F.log_softmax(zs / T, 1)
    forward = F.kl_div(log_q, log_p, log_target=True, reduction="batchmean") * T**2
    backward = F.kl_div(log_p, log_q, log_target=True, reduction="batchmean") * T**2
    assert value(KD(T), zs, zt) == pytest.approx(float(forward), rel=1e-9, abs=1e-12)
    assert value(ReverseKD(T), zs, zt) == pytest.approx(float(backward), rel=1e-9, abs=1e-12)


@some
@given(logits(), logits(), temperatures)
def test_soft_cross_entropy_is_kd_plus_the_teachers_entropy(zs: Tensor, zt: Tensor, T: float) -> None:
    entropy = torch.special.entr((zt / T).softmax(1)).sum(1).mean()
    difference = value(SoftCE(T), zs, zt) - value(KD(T), zs, zt)
    assert difference == pytest.approx(T**2 * float(entropy), rel=1e-9, abs=1e-9)


@some
@given(logits(), logits(), temperatures)
def test_soft_cross_entropy_has_the_gradients_of_kd(zs: Tensor, zt: Tensor, T: float) -> None:
    torch.testing.assert_close(gradient(SoftCE(T), zs, zt), gradient(KD(T), zs, zt), rtol=1e-9, atol=1e-12)


@some
@given(logits(), logits(), temperatures)
def test_no_student_beats_one_that_equals_the_teacher(zs: Tensor, zt: Tensor, T: float) -> None:
    for term in (KD(T), ReverseKD(T), ProbabilityMSE(T), LogitMSE()):
        assert value(term, zt, zt) == 0
        assert value(term, zs, zt) >= -1e-12
    assert value(SoftCE(T), zs, zt) >= value(SoftCE(T), zt, zt) - 1e-9


@some
@given(logits(), logits(), temperatures, st.floats(-100, 100))
def test_a_constant_added_to_all_logits_changes_no_soft_term(zs: Tensor, zt: Tensor, T: float, shift: float) -> None:
    for cls in SOFT:
        assert value(cls(T), zs + shift, zt) == pytest.approx(value(cls(T), zs, zt), rel=1e-6, abs=1e-9)


def gradient(term: Term, zs: Tensor, zt: Tensor) -> Tensor:
    zs = zs.clone().requires_grad_()
    term(outputs(zs), outputs(zt), batch(Y)).backward()
    assert zs.grad is not None
    return zs.grad


@pytest.mark.parametrize("cls", SOFT)
def test_with_t_squared_the_gradient_keeps_its_size_however_high_the_temperature(cls: type[SoftTerm]) -> None:
    ratio = gradient(cls(200), ZS, ZT).norm() / gradient(cls(100), ZS, ZT).norm()
    assert float(ratio) == pytest.approx(1, abs=0.02)
    plain = gradient(cls(200, T_squared=False), ZS, ZT).norm() / gradient(cls(100, T_squared=False), ZS, ZT).norm()
    assert float(plain) == pytest.approx(1 / 4, abs=0.01)


def test_at_high_temperature_kd_is_regression_on_centred_logits() -> None:
    zs, zt = ZS - ZS.mean(1, keepdim=True), ZT - ZT.mean(1, keepdim=True)
    expected = gradient(LogitMSE(), zs, zt) / 2 * zs.numel() / zs.shape[1] / len(zs)  # (z_s − z_t) / (N·C)
    torch.testing.assert_close(gradient(KD(1e4), zs, zt), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("term", [*(cls(T=2) for cls in SOFT), LogitMSE()], ids=lambda term: term.formula())
def test_the_mean_is_over_samples_so_a_batch_twice_over_costs_the_same(term: Term) -> None:
    assert value(term, torch.cat([ZS, ZS]), torch.cat([ZT, ZT])) == pytest.approx(value(term), rel=1e-12)


def test_two_temperatures_soften_each_side_with_its_own_and_the_factor_is_the_students() -> None:
    p, log_q = F.softmax(ZT / 4, 1), F.log_softmax(ZS / 2, 1)
    expected = 2**2 * float(F.kl_div(log_q, p, reduction="batchmean"))
    assert value(KD(T=9, teacher_T=4, student_T=2)) == pytest.approx(expected, rel=1e-12)
    assert value(KD(T=2, teacher_T=4)) == pytest.approx(expected, rel=1e-12)
    assert value(KD(T=4, student_T=2)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("term", "formula"),
    [
        (KD(T=4), "4²·KL(p_t ‖ p_s; T=4)"),
        (KD(T=4, T_squared=False), "KL(p_t ‖ p_s; T=4)"),
        (KD(T=1), "KL(p_t ‖ p_s; T=1)"),
        (KD(T=2.5), "2.5²·KL(p_t ‖ p_s; T=2.5)"),
        (KD(T=4, student_T=2), "2²·KL(p_t(T=4) ‖ p_s(T=2))"),
        (KD(T=4, student_T=1), "KL(p_t(T=4) ‖ p_s(T=1))"),
        (ReverseKD(T=4), "4²·KL(p_s ‖ p_t; T=4)"),
        (ReverseKD(T=4, student_T=2), "2²·KL(p_s(T=2) ‖ p_t(T=4))"),
        (SoftCE(T=2), "2²·CE(p_t, p_s; T=2)"),
        (ProbabilityMSE(T=4), "4²·MSE(p_t, p_s; T=4)"),
        (LogitMSE(), "MSE(z_t, z_s)"),
    ],
)
def test_the_formula_shows_every_number(term: Term, formula: str) -> None:
    assert term.formula() == formula


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("key", ["T", "teacher_T", "student_T"])
def test_a_temperature_that_is_not_above_zero_is_refused_by_its_name(key: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.kd: {key} must be a finite number above 0, got {bad}"):
        build({"kd": node("kd") | {key: bad}})
