"""Overhauled feature distillation: partial L2 behind a margin ReLU."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdrun.losses.ofd import OFD, Margin, margin_relu, partial_l2
from kdrun.models.base import Outputs

from .given import Y, batch, setting

FS = (0.1 * torch.arange(192, dtype=torch.float64)).sin().reshape(4, 3, 4, 4)
FT = (0.13 * torch.arange(192, dtype=torch.float64)).cos().reshape(4, 3, 4, 4)

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, small = st.integers(0, 2**31), st.integers(1, 5)


def network(*maps: Tensor, preactivations: bool = True) -> Outputs:
    """A network whose stages give these maps before their ReLU."""
    before = {f"stage{number}": f for number, f in enumerate(maps, start=1)}
    after = {name: f.relu() for name, f in before.items()}
    return Outputs(torch.zeros(len(maps[0]), 5), after, before if preactivations else {}, maps[-1].relu().mean((2, 3)))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prepared(student: Outputs, teacher: Outputs, term: OFD | None = None) -> OFD:
    torch.manual_seed(0)
    term = term or OFD()
    term.prepare(student, teacher, setting())
    return term.double()


def transparent(student: Outputs, teacher: Outputs) -> OFD:
    """A term whose connectors let the student's maps pass."""
    term = prepared(student, teacher)
    term.connectors = nn.ModuleList(nn.Identity() for _ in term.connectors)
    return term


def test_six_responses_by_hand() -> None:
    """Margin −1, teacher (−3, −½, 2) becomes (−1, −½, 2); what the student has below a negative target is free."""
    target = margin_relu(torch.tensor([-3.0, -0.5, 2, -3, -0.5, 2]).view(2, 1, 1, 3), torch.tensor([-1.0]))
    assert target.flatten().tolist() == [-1, -0.5, 2, -1, -0.5, 2]
    predicted = torch.tensor([-2.0, -1, -1, 1, 0, 5]).view(2, 1, 1, 3)
    assert partial_l2(predicted, target).tolist() == [0 + 0 + 3**2, 2**2 + 0.5**2 + 3**2]


def test_the_margin_is_the_mean_negative_response_of_each_channel() -> None:
    margin = Margin(2)
    margin.observe(torch.tensor([[[[-1.0, 3]], [[1, 2]]], [[[-2, 0]], [[4, 5]]]]))
    assert margin.value.tolist() == [-1.5, 0]
    margin.observe(torch.tensor([[[[-6.0, 3]], [[-8, 0]]]]))
    assert margin.value.tolist() == [-3, -8]
    assert margin.count.tolist() == [3, 1]


@some
@given(seeds, st.integers(1, 4), small)
def test_in_however_many_batches_the_margin_is_the_mean_over_all_of_them(seed: int, batches: int, c: int) -> None:
    margin, seen = Margin(c).double(), normal(3 * batches, c, 4, 4, seed=seed)
    for part in seen.chunk(batches):
        margin.observe(part)
    expected = [f[f < 0].mean().item() for f in seen.transpose(0, 1)]
    assert margin.value.tolist() == pytest.approx(expected, rel=1e-9)


def test_behind_a_batchnorm_the_margin_is_the_papers() -> None:
    """E[x | x < 0] of N(β, γ²), which the authors' code works out from the BatchNorm's parameters."""
    beta, gamma = 0.4, 1.3
    margin = Margin(1).double()
    margin.observe(beta + gamma * normal(64, 1, 64, 64))
    z = beta / gamma
    expected = beta - gamma * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / (0.5 * math.erfc(z / math.sqrt(2)))
    assert margin.value.item() == pytest.approx(expected, rel=0.01)


def test_the_term_is_the_published_sum_over_stages_divided_by_the_batch() -> None:
    maps_s, maps_t = [FS, normal(4, 2, 2, 2)], [FT, normal(4, 2, 2, 2, seed=1)]
    student, teacher = network(*maps_s), network(*maps_t)
    expected = 0.0
    for stage, (f_s, f_t) in enumerate(zip(maps_s, maps_t, strict=True)):
        m = torch.stack([channel[channel < 0].mean() for channel in f_t.transpose(0, 1)])
        target = torch.max(f_t, m[None, :, None, None])
        counted = (f_s - target) ** 2 * ((f_s > target) | (target > 0))
        expected += counted.sum().item() / 2 ** (1 - stage) / 4
    assert transparent(student, teacher)(student, teacher, batch(Y)).item() == pytest.approx(expected, rel=1e-12)


@some
@given(seeds, small, small, small)
def test_a_student_that_equals_the_teacher_pays_nothing_and_no_one_pays_less(seed: int, n: int, c: int, h: int) -> None:
    f_t, margin = normal(n, c, h, h, seed=seed), -normal(c, seed=seed + 1).abs()
    assert not partial_l2(f_t, margin_relu(f_t, margin)).any()
    assert (partial_l2(normal(n, c, h, h, seed=seed + 2), margin_relu(f_t, margin)) >= 0).all()


@some
@given(seeds, small, small, st.floats(0, 10))
def test_below_a_negative_target_nothing_is_asked(seed: int, n: int, c: int, further: float) -> None:
    f_t, margin = normal(n, c, 3, 3, seed=seed), -normal(c, seed=seed + 1).abs()
    lower = torch.where(f_t < 0, f_t - further, f_t)
    assert not partial_l2(lower, margin_relu(f_t, margin)).any()


@some
@given(seeds, st.integers(2, 5), small)
def test_the_order_of_the_samples_does_not_matter(seed: int, n: int, c: int) -> None:
    f_s, f_t = normal(n, c, 3, 3, seed=seed), normal(n, 2, 3, 3, seed=seed + 1)
    there = prepared(network(f_s), network(f_t))(network(f_s), network(f_t), batch(Y))
    f_s, f_t = f_s.flip(0), f_t.flip(0)
    back = prepared(network(f_s), network(f_t))(network(f_s), network(f_t), batch(Y))
    assert there.item() == pytest.approx(back.item(), rel=1e-9)


def test_the_margin_is_saved_but_neither_trained_nor_a_bank_and_rests_in_eval_mode() -> None:
    student, teacher = network(FS), network(FT)
    term = prepared(student, teacher)
    trained = {name for name, p in term.named_parameters() if p.requires_grad}
    assert trained == {"connectors.0.0.weight", "connectors.0.1.weight", "connectors.0.1.bias"}
    assert {"margins.0.value", "margins.0.count"} <= set(term.state_dict())
    assert term.banks == ()
    term(student, teacher, batch(Y))
    seen = term.margins[0].value.clone()
    assert (seen < 0).all()
    term.eval()(student, network(5 * FT), batch(Y))
    assert torch.equal(term.margins[0].value, seen)


def test_a_training_that_is_resumed_goes_on_with_the_same_margins() -> None:
    student, teachers = network(FS), [network(normal(4, 5, 4, 4, seed=seed)) for seed in range(4)]
    whole = prepared(student, teachers[0])
    for teacher in teachers[:2]:
        whole(student, teacher, batch(Y))
    resumed = prepared(student, teachers[0])
    resumed.load_state_dict(whole.state_dict())
    for teacher in teachers[2:]:
        assert torch.equal(whole(student, teacher, batch(Y)), resumed(student, teacher, batch(Y)))


def test_the_connector_is_a_1x1_convolution_with_batchnorm() -> None:
    convolution, norm = prepared(network(FS), network(normal(4, 512, 4, 4))).connectors[0]
    assert convolution.weight.shape == (512, 3, 1, 1)
    assert convolution.bias is None
    assert convolution.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.1)
    assert isinstance(norm, nn.BatchNorm2d)


def test_the_larger_map_is_pooled() -> None:
    large, small = normal(2, 3, 8, 8), normal(2, 3, 4, 4, seed=1)
    pooled = large.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    for f_s, f_t, s in [(large, small, pooled), (small, large, small)]:
        term = transparent(network(f_s), network(f_t))
        value = term(network(f_s), network(f_t), batch(Y))
        t = pooled if f_t is large else f_t
        expected = partial_l2(s, margin_relu(t, term.margins[0].value)).mean()  # a margin of the map as it is
        assert value.item() == pytest.approx(expected.item(), rel=1e-12)


def test_maps_are_taken_before_the_relu_unless_there_are_none() -> None:
    student, teacher = network(FS), network(FT)
    nothing_negative = network(FT.relu())
    assert prepared(student, teacher)(student, teacher, batch(Y)) != prepared(student, teacher)(
        student, nothing_negative, batch(Y)
    )
    after = prepared(student, teacher, OFD(preactivation=False))
    assert torch.equal(after(student, teacher, batch(Y)), after(student, nothing_negative, batch(Y)))
    with pytest.raises(ValueError, match="teacher's network names no pre-activations"):
        prepared(student, network(FT, preactivations=False))
    prepared(student, network(FT, preactivations=False), OFD(preactivation=False))


def test_gradients_are_those_of_finite_differences() -> None:
    f_s = FS.clone().requires_grad_()
    term = prepared(network(FS), network(FT))
    assert torch.autograd.gradcheck(lambda x: term(network(x), network(FT), batch(Y)), (f_s,))


def test_named_layers_are_compared() -> None:
    student, teacher = network(FS, normal(4, 7, 2, 2)), network(normal(4, 5, 2, 2), FT)
    term = prepared(student, teacher, OFD(True, ["stage1"], ["stage2"]))
    assert [tuple(connect[0].weight.shape[:2]) for connect in term.connectors] == [(3, 3)]
    with pytest.raises(ValueError, match="has no layer stage3"):
        prepared(student, teacher, OFD(True, ["stage3"], ["stage2"]))


def test_the_formula() -> None:
    assert OFD().formula() == "[Σ_l 2^(l−L)·d_p(r(f_s), max(f_t, m))]"
