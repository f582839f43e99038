"""Curriculum temperature: where the temperature is, which way it learns, and how fast."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdrun.losses import build
from kdrun.losses.base import kl_divergence, log_softened
from kdrun.losses.ctkd import CTKD, ramp, reversed_gradient, temperature
from kdrun.losses.kd import KD

from .given import ZS, ZT, Y, batch, node, outputs, setting

T0 = 1 + 20 / (1 + math.exp(-1))  # of the published start, θ = 1

some = settings(max_examples=25, deadline=None, derandomize=True)


def value(term: CTKD, zs: Tensor = ZS, zt: Tensor = ZT, epoch: int = 99) -> float:
    return float(term.double()(outputs(zs), outputs(zt), batch(Y, epoch)).detach())


def test_a_teacher_at_80_to_20_and_an_undecided_student_cost_the_square_of_the_temperature_times_their_kl() -> None:
    zt = T0 * torch.tensor([[4.0, 1.0]], dtype=torch.float64).log()
    kl = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    assert pytest.approx(15.6211715726) == T0
    assert value(CTKD(), torch.zeros(1, 2).double(), zt) == pytest.approx(T0**2 * kl, rel=1e-12)


@pytest.mark.parametrize(("T", "golden"), [(1.0, 1.5071967295), (2.0, 2.3474689044), (4.0, 2.8564529605)])
def test_without_room_to_learn_it_is_kd_at_the_temperature_it_starts_from(T: float, golden: float) -> None:
    assert value(CTKD(T_start=T, T_range=0)) == pytest.approx(golden, rel=1e-9)


def test_the_temperature_stays_within_its_range_wherever_theta_goes() -> None:
    theta = torch.tensor([-1e6, 0.0, 1e6])
    assert temperature(theta, 1.0, 20.0).tolist() == [1.0, 11.0, 21.0]


@some
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 7))
def test_at_any_moment_it_is_kd_at_its_temperature_and_zero_for_a_student_that_equals_the_teacher(
    seed: int, n: int, c: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    zs, zt = 5 * torch.randn(2, n, c, generator=generator, dtype=torch.float64)
    term = CTKD()
    nn.init.constant_(term.theta, float(torch.randn((), generator=generator)))
    T = float(temperature(term.theta.detach().double(), 1, 20))
    expected = float(KD(T)(outputs(zs), outputs(zt), batch(Y)))
    assert value(term, zs, zt) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert value(term, zt, zt) == pytest.approx(0, abs=1e-12)
    assert value(term, zs, zt + 7) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("epoch", "share"), [(0, 0.0244717419), (4, 0.5), (8, 0.9755282581), (9, 1), (10, 1), (239, 1)]
)
def test_lambda_grows_by_a_cosine_over_ten_epochs(epoch: int, share: float) -> None:
    assert ramp(epoch, 10) == pytest.approx(share, abs=1e-9)
    assert ramp(epoch, 0) == 1


def test_a_reversed_gradient_changes_no_value() -> None:
    x = torch.tensor([0.1, -3.7, 1e20], requires_grad=True)
    y = reversed_gradient(x, 0.3)
    torch.autograd.backward(y.sum())
    assert torch.equal(y.detach(), x.detach())
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([-0.3] * 3)


@pytest.mark.parametrize("epoch", [0, 4, 99])
@pytest.mark.parametrize("lambda_max", [1.0, 0.1])
def test_thetas_gradient_is_the_losses_reversed_and_times_lambda(epoch: int, lambda_max: float) -> None:
    term = CTKD(lambda_max=lambda_max).double()
    term(outputs(ZS), outputs(ZT), batch(Y, epoch)).backward()

    def loss(theta: float) -> float:
        """The whole of it moves with θ: the factor, the teacher's probabilities and the student's."""
        T = float(temperature(torch.tensor(theta, dtype=torch.float64), 1, 20))
        return T**2 * float(kl_divergence(log_softened(ZT, T), log_softened(ZS, T)).mean())

    slope = (loss(1 + 1e-5) - loss(1 - 1e-5)) / 2e-5
    assert term.theta.grad is not None
    assert float(term.theta.grad) == pytest.approx(-lambda_max * ramp(epoch, 10) * slope, rel=1e-5)


def test_a_step_of_the_optimiser_makes_the_students_task_harder() -> None:
    term = CTKD().double()
    before = value(term)
    optimiser = torch.optim.SGD(term.parameters(), lr=0.05)
    term(outputs(ZS), outputs(ZT), batch(Y, 99)).backward()
    optimiser.step()
    assert value(term) > before


def test_the_students_gradients_are_those_of_finite_differences() -> None:
    term = CTKD().double()

    def loss(zs: Tensor) -> Tensor:
        return term.together(outputs(zs), [outputs(ZT)], [1.0], batch(Y, 5))

    assert torch.autograd.gradcheck(loss, ZS.clone().requires_grad_())


def test_theta_is_trained_and_kept_with_the_objective_and_the_first_epoch_hardly_moves_it() -> None:
    objective = build({"ctkd": node("ctkd")})
    objective.prepare(outputs(ZS), [outputs(ZT)], setting(), seed=0)
    assert [name for name, _ in objective.named_parameters()] == ["terms.ctkd.theta"]
    assert {name: float(x) for name, x in objective.kept().items()} == {"terms.ctkd.theta": 1.0}
    assert node("ctkd")["hard_weight"] == 0.1


def test_two_teachers_are_heard_as_the_mean_of_their_probabilities_at_the_learned_temperature() -> None:
    other = ZT.flip(1)
    log_p_t = torch.log(0.25 * (ZT / T0).softmax(1) + 0.75 * (other / T0).softmax(1))
    expected = T0**2 * float(kl_divergence(log_p_t, log_softened(ZS, T0)).mean())
    term = CTKD().double()
    loss = term.together(outputs(ZS), [outputs(ZT), outputs(other)], [0.25, 0.75], batch(Y))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)


def test_the_formula_shows_every_number() -> None:
    assert CTKD().formula() == "T²·KL(p_t ‖ p_s; T=1+20·σ(θ), λ=1 from epoch 10)"
    assert CTKD(2, 6, 0.5, 5, standardize=True).formula() == (
        "T²·KL(p_t ‖ p_s; T=2+6·σ(θ), λ=0.5 from epoch 5; z-scores)"
    )


@pytest.mark.parametrize(
    ("key", "bad", "allowed"),
    [
        ("T_start", 0, "above 0"),
        ("T_start", math.nan, "above 0"),
        ("T_range", -1, "of at least 0"),
        ("lambda_max", -0.1, "of at least 0"),
        ("ramp_epochs", math.inf, "of at least 0"),
    ],
)
def test_a_number_out_of_its_range_is_refused_by_its_name(key: str, bad: float, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.ctkd: {key} must be a finite number {allowed}, got {bad}"):
        build({"ctkd": node("ctkd") | {key: bad}})
