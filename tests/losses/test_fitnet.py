"""FitNets: the student's middle stage predicts the teacher's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdrun.losses.fitnet import FitNet, hint, regressor
from kdrun.models.base import Outputs

from .given import Y, batch, setting

FS = (0.1 * torch.arange(192, dtype=torch.float64)).sin().reshape(4, 3, 4, 4)
FT = (0.13 * torch.arange(192, dtype=torch.float64)).cos().reshape(4, 3, 4, 4)

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, small = st.integers(0, 2**31), st.integers(1, 5)


def network(*maps: Tensor, stem: Tensor | None = None) -> Outputs:
    """A network that gives these maps, stage by stage."""
    named = {"stem": stem} if stem is not None else {}
    named |= {f"stage{number}": f for number, f in enumerate(maps, start=1)}
    return Outputs(torch.zeros(len(maps[0]), 5), named, {}, maps[-1].mean((2, 3)))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prepared(student: Outputs, teacher: Outputs, term: FitNet | None = None) -> FitNet:
    torch.manual_seed(0)
    term = term or FitNet()
    term.prepare(student, teacher, setting())
    return term.double()


def middle(stages: int, student_stages: int | None = None) -> tuple[str, str]:
    """What is compared of two networks with so many stages."""
    f = normal(2, 3, 4, 4)
    sides = [network(*[f] * n, stem=f) for n in (student_stages or stages, stages)]
    return prepared(*sides).pairs[0]


def test_the_distance_is_the_mean_square_of_its_published_implementation() -> None:
    assert float(hint(FS, FT).mean()) == pytest.approx(1.0126564228, rel=1e-9)


def test_two_maps_by_hand() -> None:
    predicted, f_t = torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0]]), torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 2]])
    assert hint(predicted.view(2, 1, 2, 2), f_t.view(2, 1, 2, 2)).tolist() == [29 / 4, 1]


@some
@given(seeds, small, small, small)
def test_a_prediction_that_equals_the_teacher_costs_nothing_and_none_costs_less(
    seed: int, n: int, c: int, h: int
) -> None:
    f_t = normal(n, c, h, h, seed=seed)
    assert not hint(f_t, f_t).any()
    assert (hint(normal(n, c, h, h, seed=seed + 1), f_t) >= 0).all()


@some
@given(seeds, st.integers(2, 5), small)
def test_the_order_of_the_samples_does_not_matter(seed: int, n: int, c: int) -> None:
    f_s, f_t = normal(n, c, 4, 4, seed=seed), normal(n, 3, 4, 4, seed=seed + 1)
    term = prepared(network(f_s), network(f_t))
    there, back = (term(network(s), network(t), batch(Y)) for s, t in [(f_s, f_t), (f_s.flip(0), f_t.flip(0))])
    assert there.item() == pytest.approx(back.item(), rel=1e-9)


def test_a_regressor_that_lets_a_map_pass_makes_the_mean_square_of_its_positive_part() -> None:
    term = prepared(network(FS), network(FT)).eval()
    nn.init.dirac_(term.regressor[0].weight)
    nn.init.zeros_(term.regressor[0].bias)
    value = term(network(FS), network(FT), batch(Y))
    passed = FS.relu() / (1 + 1e-5) ** 0.5  # what an untrained BatchNorm leaves
    assert value.item() == pytest.approx(float(F.mse_loss(passed, FT)), rel=1e-9)


def test_the_middle_stage_is_compared() -> None:
    assert middle(1) == ("stage1", "stage1")
    assert middle(2) == ("stage1", "stage1")
    assert middle(3) == ("stage2", "stage2")
    assert middle(4) == ("stage2", "stage2")
    assert middle(5) == ("stage3", "stage3")  # of a VGG, whose first is left out
    assert middle(5, 4) == ("stage2", "stage3")
    assert middle(4, 3) == ("stage2", "stage3")


def test_a_layer_may_be_named_and_the_other_side_stays_the_middle() -> None:
    given = network(*(normal(2, c, 4, 4) for c in (3, 4, 5)), stem=normal(2, 2, 4, 4))
    term = prepared(given, given, FitNet(student_layer="stem"))
    assert term.pairs == [("stem", "stage2")]
    assert term.regressor[0].in_channels == 2
    term = prepared(given, given, FitNet(teacher_layer="stage3"))
    assert term.pairs == [("stage2", "stage3")]
    assert term.regressor[0].out_channels == 5


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_an_unknown_layer_is_answered_with_those_that_exist(side: str) -> None:
    given = network(FS, FS)
    with pytest.raises(ValueError, match=rf"{side}'s network has no layer stage7\..*It has: stage1 3×4×4, stage2"):
        FitNet(**{f"{side}_layer": "stage7"}).prepare(given, given, setting())


@pytest.mark.parametrize(
    ("size", "aim", "kind", "kernel"),
    [
        ((8, 8), (4, 4), nn.Conv2d, (3, 3)),
        ((4, 4), (8, 8), nn.ConvTranspose2d, (4, 4)),
        ((1, 1), (2, 2), nn.ConvTranspose2d, (4, 4)),
        ((4, 4), (4, 4), nn.Conv2d, (1, 1)),
        ((8, 8), (6, 6), nn.Conv2d, (3, 3)),
        ((8, 4), (4, 4), nn.Conv2d, (5, 1)),
        ((2, 2), (8, 8), nn.Conv2d, (3, 3)),
        ((3, 3), (5, 5), nn.Conv2d, (3, 3)),
        ((8, 2), (4, 4), nn.Conv2d, (3, 3)),
    ],
)
def test_the_convolution_fits_both_sizes(
    size: tuple[int, int], aim: tuple[int, int], kind: type[nn.Module], kernel: tuple[int, int]
) -> None:
    f_s, f_t = normal(3, 2, *size).requires_grad_(), normal(3, 5, *aim)
    convolution, norm, relu = regressor(f_s, f_t)
    assert type(convolution) is kind
    assert convolution.kernel_size == kernel
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(relu, nn.ReLU)
    value = prepared(network(f_s), network(f_t))(network(f_s), network(f_t), batch(Y))
    value.backward()
    assert value.isfinite()
    assert f_s.grad is not None
    assert f_s.grad.abs().max() > 0


def test_a_map_that_no_convolution_enlarges_enough_is_compared_at_its_own_size() -> None:
    f_s, f_t = normal(3, 2, 2, 2), normal(3, 5, 8, 8)
    term = prepared(network(f_s), network(f_t))
    pooled = f_t.unflatten(3, (2, 4)).unflatten(2, (2, 4)).mean((3, 5))
    expected = F.mse_loss(term.regressor(f_s), pooled)
    assert term(network(f_s), network(f_t), batch(Y)).item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_regressor_is_trained_and_saved() -> None:
    term = prepared(network(FS), network(FT))
    trained = [name for name, p in term.named_parameters() if p.requires_grad]
    assert trained == ["regressor.0.weight", "regressor.0.bias", "regressor.1.weight", "regressor.1.bias"]
    assert {"regressor.1.running_mean", "regressor.1.running_var"} <= set(term.state_dict())
    assert term.banks == ()


def test_gradients_are_those_of_finite_differences() -> None:
    f_s = FS.clone().requires_grad_()
    term = prepared(network(FS), network(FT))
    assert torch.autograd.gradcheck(lambda x: term(network(x), network(FT), batch(Y)), (f_s,))


def test_the_formula() -> None:
    assert FitNet().formula() == "MSE(r(f_s), f_t)"
