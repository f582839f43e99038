"""Probabilistic knowledge transfer: cosine affinities within a batch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses.pkt import PKT, affinities, divergence
from kdrun.models.base import Outputs

from .given import ZS, ZT, Y, batch, outputs, setting

ES = (0.3 * torch.arange(24, dtype=torch.float64)).sin().reshape(4, 6)
ET = (0.2 * torch.arange(24, dtype=torch.float64)).cos().reshape(4, 6)

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, samples, widths = st.integers(0, 2**31), st.integers(1, 7), st.integers(1, 9)


def embedded(e: Tensor) -> Outputs:
    return Outputs(torch.zeros(len(e), 5), {}, {}, e)


def value(e_s: Tensor, e_t: Tensor) -> float:
    return float(PKT()(embedded(e_s), embedded(e_t), batch(torch.zeros(len(e_s)))))


def normal(seed: int, n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_term_gives_the_value_of_its_published_implementation() -> None:
    assert value(ES, ET) == pytest.approx(0.0702467610, rel=1e-8)


def test_two_samples_by_hand() -> None:
    """Orthogonal: kernel [1 ½; ½ 1], affinities 2/3 and 1/3. Equal directions: ½ and ½."""
    e_s = torch.tensor([[1.0, 0], [0, 2]], dtype=torch.float64)
    e_t = torch.tensor([[1.0, 1], [2, 2]], dtype=torch.float64)
    assert affinities(e_s).tolist() == [pytest.approx([2 / 3, 1 / 3]), pytest.approx([1 / 3, 2 / 3])]
    expected = (math.log(0.5 / (2 / 3)) + math.log(0.5 / (1 / 3))) / 4  # mean over 4 pairs of ½·log
    assert value(e_s, e_t) == pytest.approx(expected, rel=1e-6)


@some
@given(seeds, samples, widths)
def test_affinities_are_probabilities(s: int, n: int, d: int) -> None:
    q = affinities(normal(s, n, d))
    assert (q >= 0).all()
    assert q.sum(1).tolist() == pytest.approx([1.0] * n)


@some
@given(seeds, samples, widths, widths)
def test_a_student_that_equals_the_teacher_pays_nothing_and_no_one_pays_less(s: int, n: int, d: int, c: int) -> None:
    assert value(normal(s, n, d), normal(s, n, d)) == 0
    assert value(normal(s, n, d), normal(s + 1, n, c)) >= -1e-6


@some
@given(seeds, samples, st.integers(3, 9), st.floats(0.1, 100))
def test_rotation_and_the_length_of_each_vector_change_nothing(s: int, n: int, d: int, scale: float) -> None:
    e_s, e_t = normal(s, n, d), normal(s + 1, n, d)
    lengths = scale * (1 + torch.arange(n, dtype=torch.float64))[:, None]
    moved = lengths * e_s @ torch.linalg.qr(normal(s + 2, d, d))[0]
    near = {"rel": 1e-3, "abs": 1e-5}  # there is 1e-7 beside the norms
    assert value(moved, e_t) == pytest.approx(value(e_s, e_t), **near)
    assert value(e_t, moved) == pytest.approx(value(e_t, e_s), **near)


@some
@given(seeds, samples, widths, widths)
def test_the_order_of_the_samples_does_not_matter(s: int, n: int, d: int, c: int) -> None:
    e_s, e_t = normal(s, n, d), normal(s + 1, n, c)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(s))
    assert value(e_s[order], e_t[order]) == pytest.approx(value(e_s, e_t), rel=1e-9, abs=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    assert torch.autograd.gradcheck(divergence, (ES.clone().requires_grad_(), ET))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_opposite_vectors_stay_finite_where_rounding_takes_their_cosine_below_minus_one(dtype: torch.dtype) -> None:
    e = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    pairs = torch.stack([e, -e], dim=1)
    kernel = torch.nn.functional.normalize(pairs.double(), dim=2)
    assert (kernel @ kernel.mT).min() < -0.999
    for pair in pairs[:50]:
        e_s = pair.clone().requires_grad_()
        loss = PKT()(embedded(e_s), embedded(pair.flip(0) + 1), batch(Y[:2]))
        loss.backward()
        assert loss.isfinite()
        assert e_s.grad is not None
        assert e_s.grad.isfinite().all()


def test_a_vector_of_zeros_is_equally_far_from_all_others() -> None:
    e_s = ES.clone()
    e_s[1] = 0
    q = affinities(e_s)
    assert q[1].tolist() == pytest.approx([0.25] * 4)
    zeros = torch.zeros(4, 6, requires_grad=True)
    loss = PKT()(embedded(zeros), embedded(ET.float()), batch(Y))
    loss.backward()
    assert loss.isfinite()
    assert zeros.grad is not None
    assert not zeros.grad.any()


def test_other_layers_are_compared_by_name() -> None:
    term = PKT(student_layer="logits", teacher_layer="stage2")
    teacher = outputs(ZT)
    expected = value(ZS, teacher.features["stage2"].flatten(1))
    assert float(term(outputs(ZS), teacher, batch(Y))) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match=r"the teacher's network has no layer stage9.*embedding, logits"):
        PKT(teacher_layer="stage9").prepare(outputs(ZS), teacher, setting())


def test_it_has_no_state_and_names_its_formula() -> None:
    term = PKT()
    term.prepare(outputs(ZS), outputs(ZT), setting())
    assert not term.state_dict()
    assert term.formula() == "KL(q_t ‖ q_s)/N"
