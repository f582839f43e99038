"""Attention transfer: where the maps are active."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build
from kdrun.losses.at import AT, attention, attention_distance
from kdrun.models.base import Outputs

from .given import Y, batch, node, setting

FS = (0.1 * torch.arange(192, dtype=torch.float64)).sin().reshape(4, 3, 4, 4)
FT = (0.13 * torch.arange(192, dtype=torch.float64)).cos().reshape(4, 3, 4, 4)

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, small, powers = st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 4)


def network(*maps: Tensor) -> Outputs:
    """A network that gives these maps, stage by stage."""
    named = {f"stage{number}": f for number, f in enumerate(maps, start=1)}
    return Outputs(torch.zeros(len(maps[0]), 5), named, {}, maps[-1].mean((2, 3)))


def value(f_s: Tensor, f_t: Tensor, term: AT | None = None) -> float:
    student, teacher, term = network(f_s), network(f_t), term or AT()
    term.prepare(student, teacher, setting())
    return term(student, teacher, batch(Y)).item()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_stage_gives_the_value_of_the_published_implementation() -> None:
    assert value(FS, FT) == pytest.approx(0.0032252062, rel=1e-8)
    assert float(attention_distance(FS, FT, 2).mean()) == pytest.approx(0.0032252062, rel=1e-8)


def test_stages_are_summed() -> None:
    student, teacher, term = network(FS, FT, FS), network(FT, FS, FS), AT()
    term.prepare(student, teacher, setting())
    assert term(student, teacher, batch(Y)).item() == pytest.approx(2 * 0.0032252062, rel=1e-8)


def test_two_places_by_hand() -> None:
    """Two channels: squares 9 and 16 at one place, 0 at the other: Q = (1, 0). One of 3 and 4: 9 and 16."""
    f_s = torch.tensor([[[3.0, 0]], [[4.0, 0]]], dtype=torch.float64)[None]
    f_t = torch.tensor([[[3.0, 4.0]]], dtype=torch.float64)[None]
    length = (9**2 + 16**2) ** 0.5
    assert attention(f_t, 2)[0].tolist() == pytest.approx([9 / length, 16 / length], rel=1e-12)
    assert value(f_s, f_t) == pytest.approx(((1 - 9 / length) ** 2 + (16 / length) ** 2) / 2, rel=1e-12)
    assert attention(f_t, 1)[0].tolist() == pytest.approx([3 / 5, 4 / 5], rel=1e-12)


@some
@given(seeds, small, small, small, powers)
def test_attention_has_length_one(seed: int, n: int, c: int, h: int, p: int) -> None:
    lengths = attention(normal(n, c, h, h, seed=seed), p).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(n, dtype=torch.float64))


@some
@given(seeds, small, small, small, powers)
def test_a_student_that_equals_the_teacher_pays_nothing_and_no_one_pays_less(
    seed: int, n: int, c: int, h: int, p: int
) -> None:
    f_t = normal(n, c, h, h, seed=seed)
    assert value(f_t, f_t, AT(p)) == 0
    assert value(normal(n, c + 1, h, h, seed=seed + 1), f_t, AT(p)) >= 0


@some
@given(seeds, small, small, powers, st.floats(1e-2, 1e2))
def test_scale_sign_and_order_of_channels_change_nothing(seed: int, n: int, c: int, p: int, scale: float) -> None:
    f_s, f_t = normal(n, c, 3, 3, seed=seed), normal(n, 2, 3, 3, seed=seed + 1)
    same = -scale * f_s.flip(1)
    assert value(same, f_t, AT(p)) == pytest.approx(value(f_s, f_t, AT(p)), rel=1e-9, abs=1e-15)
    assert value(f_t, same, AT(p)) == pytest.approx(value(f_t, f_s, AT(p)), rel=1e-9, abs=1e-15)


@some
@given(seeds, small, small)
def test_the_order_of_the_samples_does_not_matter(seed: int, n: int, c: int) -> None:
    f_s, f_t = normal(n, c, 3, 3, seed=seed), normal(n, 2, 3, 3, seed=seed + 1)
    assert value(f_s.flip(0), f_t.flip(0)) == pytest.approx(value(f_s, f_t), rel=1e-9)


def test_the_larger_map_is_pooled_before_its_attention_is_taken() -> None:
    large, small = normal(2, 3, 8, 8), normal(2, 5, 4, 4, seed=1)
    pooled = large.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    assert value(large, small) == pytest.approx(value(pooled, small), rel=1e-12)
    assert value(small, large) == pytest.approx(value(small, pooled), rel=1e-12)
    assert value(normal(2, 3, 6, 2), normal(2, 3, 3, 4)) > 0  # each is larger in one direction


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1e4])
def test_value_and_gradient_are_finite_for_maps_of_any_size_and_zero_for_maps_of_zeros(
    dtype: torch.dtype, scale: float
) -> None:
    f_s = (FS * scale).to(dtype).requires_grad_()
    student, teacher, term = network(f_s), network((FT * scale).to(dtype)), AT()
    term.prepare(student, teacher, setting())
    loss = term(student, teacher, batch(Y))
    loss.backward()
    assert loss.isfinite()
    assert f_s.grad is not None
    assert f_s.grad.isfinite().all()
    if not scale:
        assert not loss
        assert not f_s.grad.any()


def test_a_student_of_zeros_pays_for_the_teachers_attention() -> None:
    assert value(torch.zeros_like(FS), FT) == pytest.approx(1 / 16, rel=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    f_s = FS.clone().requires_grad_()
    for p in (2, 3):
        assert torch.autograd.gradcheck(lambda x, p=p: attention_distance(x, FT, p), (f_s,))


def test_a_map_of_one_place_has_nothing_to_say() -> None:
    assert value(normal(4, 3, 1, 1), normal(4, 3, 8, 8, seed=1)) == 0


@pytest.mark.parametrize("p", [0, -2])
def test_a_power_below_one_is_refused(p: int) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.at: p must be a whole number of at least 1, got {p}"):
        build({"at": node("at") | {"p": p}})


def test_named_layers_are_compared() -> None:
    student, teacher = network(FS, FT), network(FT, FT)
    term = AT(2, ["stage1"], ["stage2"])
    term.prepare(student, teacher, setting())
    assert term(student, teacher, batch(Y)).item() == pytest.approx(0.0032252062, rel=1e-8)
    with pytest.raises(ValueError, match="has no layer stage3"):
        AT(2, ["stage3"], ["stage2"]).prepare(student, teacher, setting())


def test_it_has_nothing_to_train_and_shows_its_power() -> None:
    assert not list(AT().parameters())
    assert not AT().state_dict()
    assert AT(4).formula() == "[Σ_l MSE(Q_s, Q_t; p=4)]"
