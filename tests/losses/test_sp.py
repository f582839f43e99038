"""Similarity preserving: the similarities within a batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses.sp import SP, similarities, similarity_preserving
from kdrun.models.base import Outputs

from .given import ZS, ZT, Y, batch, outputs, setting

FS = (0.1 * torch.arange(192, dtype=torch.float64)).sin().reshape(4, 3, 4, 4)
FT = (0.13 * torch.arange(192, dtype=torch.float64)).cos().reshape(4, 3, 4, 4)

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, samples, widths = st.integers(0, 2**31), st.integers(1, 7), st.integers(1, 9)


def maps(*features: Tensor) -> Outputs:
    """A network that gives these maps, stage by stage."""
    named = {f"stage{number}": x for number, x in enumerate(features, start=1)}
    return Outputs(torch.zeros(len(features[0]), 5), named, {}, features[-1].mean((2, 3)))


def value(f_s: Tensor, f_t: Tensor) -> float:
    return float(SP()(maps(f_s), maps(f_t), batch(torch.zeros(len(f_s)))))


def normal(seed: int, n: int, d: int) -> Tensor:
    return torch.randn(n, d, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_term_gives_the_value_of_its_published_implementation() -> None:
    assert value(FS, FT) == pytest.approx(0.4967820990, rel=1e-9)


def test_two_samples_by_hand() -> None:
    """Student (1, 0), (1, 1): G = [1 1; 1 2] by rows. Teacher orthogonal: G = [1 0; 0 1]."""
    f_s = torch.tensor([[1.0, 0], [1, 1]], dtype=torch.float64)[..., None, None]
    f_t = torch.tensor([[3.0, 0], [0, 5]], dtype=torch.float64)[..., None, None]
    first = (1 - 2**-0.5) ** 2 + (2**-0.5) ** 2
    second = (5**-0.5) ** 2 + (1 - 2 * 5**-0.5) ** 2
    assert value(f_s, f_t) == pytest.approx((first + second) / 2**2, rel=1e-12)


def test_rows_are_divided_by_their_l2_norm_and_not_by_the_sum() -> None:
    assert similarities(FS.flatten(1)).norm(dim=1).tolist() == pytest.approx([1.0] * 4, rel=1e-12)


@some
@given(seeds, samples, widths, widths)
def test_a_student_that_equals_the_teacher_pays_nothing_and_no_one_pays_less(s: int, n: int, d: int, c: int) -> None:
    assert value(normal(s, n, d), normal(s, n, d)) == 0
    assert value(normal(s, n, d), normal(s + 1, n, c)) >= 0


@some
@given(seeds, samples, widths, st.floats(0.01, 100))
def test_scale_and_rotation_of_the_features_change_nothing(s: int, n: int, d: int, scale: float) -> None:
    f_s, f_t = normal(s, n, d).flatten(1), normal(s + 1, n, d).flatten(1)
    turn = torch.linalg.qr(torch.randn(4 * d, 4 * d, generator=torch.Generator().manual_seed(s), dtype=f_s.dtype))[0]
    expected = similarity_preserving(f_s, f_t)
    torch.testing.assert_close(similarity_preserving(scale * f_s @ turn, f_t), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(similarity_preserving(f_s, scale * f_t @ turn), expected, rtol=1e-9, atol=1e-12)


@some
@given(seeds, samples, widths, widths)
def test_the_order_of_the_samples_does_not_matter(s: int, n: int, d: int, c: int) -> None:
    f_s, f_t = normal(s, n, d), normal(s + 1, n, c)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(s))
    assert value(f_s[order], f_t[order]) == pytest.approx(value(f_s, f_t), rel=1e-9, abs=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    assert torch.autograd.gradcheck(similarity_preserving, (FS.flatten(1).requires_grad_(), FT.flatten(1)))


def test_a_sample_whose_features_are_all_zero_has_no_explosive_gradient() -> None:
    f_s = FS.clone()
    f_s[1] = 0
    f_s.requires_grad_()
    loss = SP()(maps(f_s), maps(FT), batch(Y))
    loss.backward()
    assert loss.isfinite()
    assert f_s.grad is not None
    assert f_s.grad.abs().max() < 10


def test_the_last_maps_are_compared_whatever_their_size_and_others_by_name() -> None:
    student, teacher = maps(FS, FT[:, :1]), maps(FT, FT, FS[:, :, :2, :2])
    expected = value(FT[:, :1], FS[:, :, :2, :2])
    assert float(SP()(student, teacher, batch(Y))) == pytest.approx(expected, rel=1e-12)
    named = SP(student_layer="stage1", teacher_layer="stage2")
    assert float(named(student, teacher, batch(Y))) == pytest.approx(0.4967820990, rel=1e-9)


def test_a_network_without_maps_is_compared_by_its_embedding() -> None:
    student = Outputs(ZS, {}, {}, FS.flatten(1))
    assert float(SP()(student, maps(FT), batch(Y))) == pytest.approx(0.4967820990, rel=1e-9)


def test_an_unknown_layer_is_refused_before_the_training_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"the student's network has no layer stage9.*stage1 3×8×8, stage2 6×4×4"):
        SP(student_layer="stage9").prepare(outputs(ZS), outputs(ZT), setting())
    with pytest.raises(ValueError, match="the teacher's network has no layer x"):
        SP(teacher_layer="x").prepare(outputs(ZS), outputs(ZT), setting())


def test_it_has_neither_parameters_nor_state_and_names_its_formula() -> None:
    term = SP()
    term.prepare(outputs(ZS), outputs(ZT), setting())
    assert not term.state_dict()
    assert term.memory(outputs(ZS), outputs(ZT), setting()) == 0
    assert term.formula() == "‖G_t − G_s‖²/N²"
