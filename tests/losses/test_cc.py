"""Correlation congruence: differences of neighbours in a batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses.cc import CC, correlation_congruence
from kdrun.models.base import Outputs

from .given import ZS, ZT, Y, batch, outputs, setting

ES = (0.3 * torch.arange(24, dtype=torch.float64)).sin().reshape(4, 6)
ET = (0.2 * torch.arange(24, dtype=torch.float64)).cos().reshape(4, 6)

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, samples, widths = st.integers(0, 2**31), st.integers(1, 7), st.integers(1, 9)


def embedded(e: Tensor) -> Outputs:
    return Outputs(torch.zeros(len(e), 5), {}, {}, e)


def normal(seed: int, n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prepared(e_s: Tensor, e_t: Tensor, feature_dim: int = 7) -> CC:
    torch.manual_seed(0)
    term = CC(feature_dim)
    term.prepare(embedded(e_s), embedded(e_t), setting())
    return term.double() if e_s.dtype == torch.float64 else term


def test_the_formula_gives_the_value_of_its_published_implementation() -> None:
    assert float(correlation_congruence(ES, ET)) == pytest.approx(0.7355647094, rel=1e-9)


def test_with_embeddings_that_change_nothing_the_term_gives_that_value_too() -> None:
    term = prepared(ES, ET, 6)
    for layer in (term.embed_student, term.embed_teacher):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    value = term(embedded(ES), embedded(ET), batch(Y)).detach()
    assert float(value) == pytest.approx(0.7355647094, rel=1e-9)


def test_three_samples_by_hand() -> None:
    e_s = torch.tensor([[1.0, 0], [-2, 1], [0, 3]])
    assert float(correlation_congruence(e_s, torch.zeros(3, 2))) == ((1 * 2 + 0 * 1) + (2 * 0 + 1 * 3)) / 2


def test_a_batch_of_one_has_no_neighbours_and_costs_nothing() -> None:
    e_s = ES[:1].clone().requires_grad_()
    term = prepared(ES, ET)
    loss = term(embedded(e_s), embedded(ET[:1]), batch(Y[:1]))
    loss.backward()
    assert loss == 0
    assert e_s.grad is not None
    assert not e_s.grad.any()


@some
@given(seeds, samples, widths)
def test_equal_embeddings_cost_nothing_and_none_cost_less(s: int, n: int, d: int) -> None:
    assert correlation_congruence(normal(s, n, d), normal(s, n, d)) == 0
    assert correlation_congruence(normal(s, n, d), normal(s + 1, n, d)) >= 0


@some
@given(seeds, samples, widths, st.floats(0.01, 100))
def test_it_grows_with_the_square_of_the_differences_and_reads_nothing_else(
    s: int, n: int, d: int, scale: float
) -> None:
    e_s, e_t, shift = normal(s, n, d), normal(s + 1, n, d), normal(s + 2, n, d)
    expected = float(correlation_congruence(e_s, e_t))
    assert float(correlation_congruence(e_t, e_s)) == pytest.approx(expected, rel=1e-12)
    assert float(correlation_congruence(e_s + shift, e_t + shift)) == pytest.approx(expected, rel=1e-9)
    assert float(correlation_congruence(scale * e_s, scale * e_t)) == pytest.approx(scale**2 * expected, rel=1e-9)


@some
@given(seeds, samples, widths)
def test_a_batch_backwards_costs_the_same(s: int, n: int, d: int) -> None:
    e_s, e_t = normal(s, n, d), normal(s + 1, n, d)
    backwards = correlation_congruence(e_s.flip(0), e_t.flip(0))
    assert float(backwards) == pytest.approx(float(correlation_congruence(e_s, e_t)), rel=1e-9)


def test_gradients_are_those_of_finite_differences_through_the_embeddings_too() -> None:
    term = prepared(ES, ET)

    def loss(e_s: Tensor, *_: Tensor) -> Tensor:
        return term(embedded(e_s), embedded(ET), batch(Y))

    assert torch.autograd.gradcheck(loss, (ES.clone().requires_grad_(), *term.parameters()))


def test_both_embeddings_are_trained_and_kept_but_the_teacher_is_not() -> None:
    e_t = ET.clone().requires_grad_()
    term = prepared(ES, e_t, 128)
    assert {name: tuple(p.shape) for name, p in term.named_parameters()} == {
        "embed_student.weight": (128, 6),
        "embed_student.bias": (128,),
        "embed_teacher.weight": (128, 6),
        "embed_teacher.bias": (128,),
    }
    term(embedded(ES), embedded(e_t), batch(Y)).backward()
    assert all(p.grad is not None and p.grad.any() for p in term.parameters())
    assert e_t.grad is None
    assert not term.banks


def test_other_layers_are_embedded_by_name_whatever_their_size() -> None:
    term = CC(student_layer="stage1", teacher_layer="logits")
    term.prepare(outputs(ZS.float()), outputs(ZT.float()), setting())
    assert term.embed_student.in_features == 3 * 8 * 8
    assert term.embed_teacher.in_features == 5
    assert term(outputs(ZS.float()), outputs(ZT.float()), batch(Y)).isfinite()
    with pytest.raises(ValueError, match=r"the student's network has no layer stage9.*embedding, logits"):
        CC(student_layer="stage9").prepare(outputs(ZS), outputs(ZT), setting())


def test_a_dimension_below_one_is_refused_and_the_formula_shows_it() -> None:
    with pytest.raises(ValueError, match="feature_dim must be a whole number of at least 1, got 0; 128 is usual"):
        CC(0)
    assert CC().formula() == "CC(e_t, e_s; d=128)"
