"""Variational information distillation: how likely the student's maps make the teacher's."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdrun.losses import build
from kdrun.losses.vid import VID, Gaussian, inverse_softplus, negative_log_likelihood
from kdrun.models.base import Outputs

from .given import Y, batch, node, setting

FS = (0.1 * torch.arange(192, dtype=torch.float64)).sin().reshape(4, 3, 4, 4)
FT = (0.13 * torch.arange(192, dtype=torch.float64)).cos().reshape(4, 3, 4, 4)
GOLDEN = 0.9059845985

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, small = st.integers(0, 2**31), st.integers(1, 5)


def network(*maps: Tensor) -> Outputs:
    """A network that gives these maps, stage by stage."""
    named = {f"stage{number}": f for number, f in enumerate(maps, start=1)}
    return Outputs(torch.zeros(len(maps[0]), 5), named, {}, maps[-1].mean((2, 3)))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prepared(student: Outputs, teacher: Outputs, term: VID | None = None) -> VID:
    torch.manual_seed(0)
    term = term or VID()
    term.prepare(student, teacher, setting())
    return term.double()


def test_the_likelihood_has_the_value_of_its_published_implementation() -> None:
    variance = torch.full((3,), 5.0, dtype=torch.float64)
    assert float(negative_log_likelihood(FS, FT, variance).mean()) == pytest.approx(GOLDEN, rel=1e-9)


def test_the_term_gives_the_published_value_where_the_regressor_is_the_identity() -> None:
    term = prepared(network(FS), network(FT))
    term.stages[0].mean = nn.Identity()
    assert term(network(FS), network(FT), batch(Y)).item() == pytest.approx(GOLDEN, rel=1e-7)  # a is a float32


def test_stages_are_summed() -> None:
    term = prepared(network(FS, FS), network(FT, FT))
    for stage in term.stages:
        stage.mean = nn.Identity()
    assert term(network(FS, FS), network(FT, FT), batch(Y)).item() == pytest.approx(2 * GOLDEN, rel=1e-7)


def test_two_channels_by_hand() -> None:
    """Error 3 at variance 9 and error 1 at variance 4: ½·(1 + log 9 + ¼ + log 4) / 2."""
    mean, f_t = torch.tensor([[3.0, 0]]), torch.tensor([[0.0, 1]])
    variance = torch.tensor([9.0, 4.0])
    value = negative_log_likelihood(mean[:, :, None, None], f_t[:, :, None, None], variance)
    assert value.tolist() == pytest.approx([(1 + math.log(9) + 0.25 + math.log(4)) / 4], rel=1e-6)


@pytest.mark.parametrize("variance", [1e-4, 0.1, 1.0, 5.0, 50.0, 1000.0])
def test_the_variance_starts_where_it_is_told_to(variance: float) -> None:
    assert Gaussian(3, 5, variance).variance().tolist() == pytest.approx([variance] * 5, rel=1e-5)
    assert math.log1p(math.exp(inverse_softplus(min(variance, 50)))) == pytest.approx(min(variance, 50), rel=1e-9)


def test_the_mean_is_three_1x1_convolutions_with_relu_between() -> None:
    kinds = [type(part) for part in Gaussian(3, 5, 5.0).mean]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert [tuple(p.shape) for p in Gaussian(3, 5, 5.0).mean.parameters()] == [(5, 3, 1, 1), (5, 5, 1, 1), (5, 5, 1, 1)]


@some
@given(seeds, small, small, small)
def test_no_mean_is_better_than_the_teacher_and_no_variance_than_the_mean_squared_error(
    seed: int, n: int, c: int, h: int
) -> None:
    mean, f_t = normal(n, c, h, h, seed=seed), normal(n, c, h, h, seed=seed + 1)
    best = (mean - f_t).square().mean((0, 2, 3))
    at_best = negative_log_likelihood(mean, f_t, best).mean()
    assert float(at_best) == pytest.approx(float((1 + best.log()).mean() / 2), rel=1e-9, abs=1e-12)
    for factor in (0.5, 2.0):
        assert negative_log_likelihood(mean, f_t, factor * best).mean() > at_best
    assert (negative_log_likelihood(f_t, f_t, best) <= negative_log_likelihood(mean, f_t, best)).all()


@some
@given(seeds, st.integers(2, 5), small)
def test_the_order_of_the_samples_does_not_matter(seed: int, n: int, c: int) -> None:
    f_s, f_t = normal(n, c, 3, 3, seed=seed), normal(n, 2, 3, 3, seed=seed + 1)
    term = prepared(network(f_s), network(f_t))
    there, back = (term(network(s), network(t), batch(Y)) for s, t in [(f_s, f_t), (f_s.flip(0), f_t.flip(0))])
    assert there.item() == pytest.approx(back.item(), rel=1e-9)


def test_variances_and_regressors_are_trained_and_saved() -> None:
    term = prepared(network(FS, FS), network(FT, FT))
    trained = {name for name, p in term.named_parameters() if p.requires_grad}
    expected = {
        f"stages.{i}.{name}" for i in range(2) for name in ("a", "mean.0.weight", "mean.2.weight", "mean.4.weight")
    }
    assert trained == expected == set(term.state_dict())
    term(network(FS, FS), network(FT, FT), batch(Y)).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in term.parameters())


def test_the_variance_learns_the_error_that_is_left() -> None:
    f_t = 0.3 * normal(4, 2, 4, 4, seed=2)
    term = prepared(network(FS), network(f_t), VID(initial_variance=1.0))
    before = term.stages[0].variance().mean().item()
    optimizer = torch.optim.Adam(term.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        term(network(FS), network(f_t), batch(Y)).backward()
        optimizer.step()
    assert term.stages[0].variance().mean().item() < before / 3


def test_the_larger_map_is_pooled() -> None:
    large, small = normal(2, 3, 8, 8), normal(2, 3, 4, 4, seed=1)
    pooled = large.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    term = prepared(network(large), network(small))
    for f_s, f_t, s, t in [(large, small, pooled, small), (small, large, small, pooled)]:
        value, expected = (term(network(a), network(b), batch(Y)) for a, b in [(f_s, f_t), (s, t)])
        assert value.item() == pytest.approx(expected.item(), rel=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    term = prepared(network(FS), network(FT))
    a = term.stages[0].a.detach().clone().requires_grad_()
    f_s = FS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: term(network(x), network(FT), batch(Y)), (f_s,))
    assert torch.autograd.gradcheck(
        lambda x: negative_log_likelihood(FS, FT, torch.nn.functional.softplus(x) + 1e-5), (a,)
    )


@pytest.mark.parametrize("bad", [0.0, -1.0, 1e-5, math.nan, math.inf])
def test_a_variance_that_softplus_cannot_give_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"^loss\.vid: initial_variance must be a finite number above 1e-05, got"):
        build({"vid": node("vid") | {"initial_variance": bad}})


def test_named_layers_are_compared() -> None:
    student, teacher = network(FS, normal(4, 7, 2, 2)), network(normal(4, 5, 2, 2), FT)
    term = prepared(student, teacher, VID(5.0, ["stage1"], ["stage2"]))
    assert [tuple(stage.mean[0].weight.shape[:2]) for stage in term.stages] == [(3, 3)]
    with pytest.raises(ValueError, match="has no layer stage3"):
        prepared(student, teacher, VID(5.0, ["stage3"], ["stage2"]))


def test_the_formula() -> None:
    assert VID().formula() == "½·[Σ_l mean((μ(f_s) − f_t)²/σ² + log σ²)]"
