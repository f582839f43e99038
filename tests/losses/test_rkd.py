"""Relational distillation: distances and angles within a batch."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses.rkd import RKD, angle_loss, angles, distance_loss, relative_distances
from kdrun.models.base import Outputs

from .given import ZS, ZT, Y, batch, outputs, setting

ES = (0.3 * torch.arange(24, dtype=torch.float64)).sin().reshape(4, 6)
ET = (0.2 * torch.arange(24, dtype=torch.float64)).cos().reshape(4, 6)

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, samples, widths = st.integers(0, 2**31), st.integers(1, 7), st.integers(1, 9)


def embedded(e: Tensor) -> Outputs:
    return Outputs(torch.zeros(len(e), 5), {}, {}, e)


def value(e_s: Tensor, e_t: Tensor, term: RKD | None = None) -> float:
    return float((term or RKD())(embedded(e_s), embedded(e_t), batch(torch.zeros(len(e_s)))))


def normal(seed: int, n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("term", "golden"),
    [
        (RKD(1, 0), 0.0663647473),
        (RKD(0, 1), 0.0520080456),
        (RKD(25, 50), 4.2595209594),
        (RKD(), 4.2595209594),
    ],
    ids=lambda case: case.formula() if isinstance(case, RKD) else "",
)
def test_the_term_gives_the_value_of_its_published_implementation(term: RKD, golden: float) -> None:
    assert value(ES, ET, term) == pytest.approx(golden, rel=1e-8)


def test_a_triangle_of_3_4_and_5_by_hand() -> None:
    e = torch.tensor([[0.0, 0], [3, 0], [0, 4]], dtype=torch.float64)
    assert (relative_distances(e) * 4).tolist() == [[0, 3, 4], [3, 0, 5], [4, 5, 0]]  # their mean is 4
    at_origin, at_three = angles(e)[:2]
    assert at_origin[1:, 1:].tolist() == [[1, 0], [0, 1]]
    assert at_three[0, 2] == pytest.approx(3 / 5)
    assert not angles(e)[1, 1].any()  # no direction from a sample to itself


@some
@given(seeds, st.integers(2, 7), widths)
def test_distances_and_angles_are_those_of_the_published_code(s: int, n: int, d: int) -> None:
    e = normal(s, n, d)
    distances = (e.square().sum(1)[:, None] + e.square().sum(1) - 2 * e @ e.T).clamp(min=1e-12).sqrt()
    distances.fill_diagonal_(0)
    expected = distances / distances[distances > 0].mean()
    torch.testing.assert_close(relative_distances(e), expected, rtol=1e-6, atol=1e-9)
    directions = F.normalize(e[None] - e[:, None], dim=2)
    torch.testing.assert_close(angles(e), directions @ directions.mT, rtol=1e-9, atol=1e-12)


@some
@given(seeds, samples, widths, widths)
def test_a_student_that_equals_the_teacher_pays_nothing_and_no_one_pays_less(s: int, n: int, d: int, c: int) -> None:
    assert value(normal(s, n, d), normal(s, n, d)) == 0
    assert value(normal(s, n, d), normal(s + 1, n, c)) >= 0


@some
@given(seeds, samples, widths, st.floats(0.01, 100))
def test_scale_shift_and_rotation_change_nothing(s: int, n: int, d: int, scale: float) -> None:
    e_s, e_t = normal(s, n, d), normal(s + 1, n, d)
    moved = scale * e_s @ torch.linalg.qr(normal(s + 2, d, d))[0] + normal(s + 3, 1, d)
    assert value(moved, e_t) == pytest.approx(value(e_s, e_t), rel=1e-6, abs=1e-9)
    assert value(e_t, moved) == pytest.approx(value(e_t, e_s), rel=1e-6, abs=1e-9)


@some
@given(seeds, samples, widths, widths)
def test_the_order_of_the_samples_does_not_matter(s: int, n: int, d: int, c: int) -> None:
    e_s, e_t = normal(s, n, d), normal(s + 1, n, c)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(s))
    assert value(e_s[order], e_t[order]) == pytest.approx(value(e_s, e_t), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_gradients_are_those_of_finite_differences(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert torch.autograd.gradcheck(loss, (ES.clone().requires_grad_(), ET))


def test_two_equal_images_have_no_direction_and_no_explosive_gradient() -> None:
    e_s = ES.clone()
    e_s[2] = e_s[0]
    e_s.requires_grad_()
    loss = RKD()(embedded(e_s), embedded(ET), batch(Y))
    loss.backward()
    assert loss.isfinite()
    assert e_s.grad is not None
    assert e_s.grad.abs().max() < 1e3


def test_equal_images_do_not_count_in_the_mean_distance() -> None:
    e = torch.tensor([[0.0], [0], [1]], dtype=torch.float64)
    assert relative_distances(e).tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("n", [1, 4])
def test_a_batch_in_which_all_images_are_equal_costs_something_finite(n: int, dtype: torch.dtype) -> None:
    e_s = torch.full((n, 6), 1e4, dtype=dtype, requires_grad=True)
    loss = RKD()(embedded(e_s), embedded(ET[:n].to(dtype)), batch(Y[:n]))
    loss.backward()
    assert loss.isfinite()
    assert e_s.grad is not None
    assert not e_s.grad.any()


def test_neighbours_far_from_the_origin_keep_their_distances_in_float32() -> None:
    near = relative_distances((ES * 1e-3).float())
    far = relative_distances((ES * 1e-3).float() + 8)
    torch.testing.assert_close(far, near, rtol=0.01, atol=0.01)


def test_other_layers_are_compared_by_name() -> None:
    term = RKD(student_layer="logits", teacher_layer="stage2")
    teacher = outputs(ZT)
    expected = value(ZS, teacher.features["stage2"].flatten(1))
    assert float(term(outputs(ZS), teacher, batch(Y))) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match=r"the student's network has no layer stage9.*embedding, logits"):
        RKD(student_layer="stage9").prepare(outputs(ZS), teacher, setting())


@pytest.mark.parametrize("key", ["distance_weight", "angle_weight"])
@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_weights_out_of_range_are_refused_by_name(key: str, bad: float) -> None:
    with pytest.raises(ValueError, match=f"{key} must be a finite number of at least 0, got {bad}"):
        RKD(**{key: bad})


def test_two_weights_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="both 0"):
        RKD(0, 0)


def test_the_formula_shows_the_weights_that_are_not_zero_and_there_is_no_state() -> None:
    assert RKD().formula() == "(25·RKD-D(e_t, e_s) + 50·RKD-A(e_t, e_s))"
    assert RKD(1, 0).formula() == "(1·RKD-D(e_t, e_s))"
    term = RKD()
    term.prepare(outputs(ZS), outputs(ZT), setting())
    assert not term.state_dict()
