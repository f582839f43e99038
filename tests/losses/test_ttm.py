"""TTM and WTTM: their golden values, what they are beside KD, and how WTTM weighs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build
from kdrun.losses.kd import KD
from kdrun.losses.ttm import TTM, WTTM, power_sum

from .given import ZS, ZT, Y, arguments, batch, node, outputs

some = settings(max_examples=20, deadline=None, derandomize=True)
seeds, sizes, classes, powers = st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 8), st.floats(0.05, 3)


def value(term: TTM | KD, zs: Tensor = ZS, zt: Tensor = ZT) -> float:
    return float(term(outputs(zs), outputs(zt), batch(Y)))


def drawn(seed: int, n: int, c: int) -> Tensor:
    """Logits of a student and of a teacher, (2, n, c)."""
    return 3 * torch.randn(2, n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("term", "golden"),
    [
        (TTM(0.2), 0.8100925133),
        (TTM(0.5), 1.1041812794),
        (WTTM(0.2), 2.3674002631),
        (WTTM(0.5), 1.8698877068),
    ],
    ids=lambda case: case.formula() if isinstance(case, TTM) else "",
)
def test_it_gives_the_values_of_the_published_implementation(term: TTM, golden: float) -> None:
    assert value(term) == pytest.approx(golden, rel=1e-9)


def test_the_yamls_are_the_published_commands_for_vgg13_and_vgg8() -> None:
    assert (node("ttm")["weight"], arguments("ttm")["gamma"]) == (45, 0.1)
    assert (node("wttm")["weight"], arguments("wttm")["gamma"]) == (4, 0.2)
    total, _ = build({"wttm": node("wttm")})(outputs(ZS), [outputs(ZT)], batch(Y))
    assert float(total) == pytest.approx(4 * 2.3674002631, rel=1e-9)
    assert "hard_weight" not in node("ttm") | node("wttm")  # so that the labels weigh 1


@some
@given(seeds, sizes, classes, powers)
def test_ttm_is_kd_whose_teacher_alone_has_a_temperature_without_a_factor(
    seed: int, n: int, c: int, gamma: float
) -> None:
    zs, zt = drawn(seed, n, c)
    kd = KD(T=4, teacher_T=1 / gamma, student_T=1, T_squared=False)
    assert value(TTM(gamma), zs, zt) == pytest.approx(value(kd, zs, zt), rel=1e-12, abs=1e-14)


@some
@given(seeds, sizes, classes, powers)
def test_the_teachers_probabilities_are_raised_to_a_power_and_weighed_by_their_sum(
    seed: int, n: int, c: int, gamma: float
) -> None:
    zs, zt = drawn(seed, n, c)
    p = zt.softmax(1) ** gamma
    total = p.sum(1, keepdim=True)
    each = (p / total * ((p / total).log() - zs.log_softmax(1))).sum(1)
    assert value(TTM(gamma), zs, zt) == pytest.approx(float(each.mean()), rel=1e-9, abs=1e-12)
    assert value(WTTM(gamma), zs, zt) == pytest.approx(float((total[:, 0] * each).mean()), rel=1e-9, abs=1e-12)


@some
@given(seeds, sizes, classes, powers)
def test_it_is_zero_for_the_transformed_teacher_and_never_less(seed: int, n: int, c: int, gamma: float) -> None:
    zs, zt = drawn(seed, n, c)
    for term in (TTM(gamma), WTTM(gamma)):
        assert value(term, gamma * zt + 2, zt) == pytest.approx(0, abs=1e-12)
        assert value(term, zs, zt) >= -1e-12
    assert value(TTM(1), zt, zt) == pytest.approx(0, abs=1e-12)


def test_a_teacher_weighs_one_where_it_is_certain_and_most_where_it_knows_nothing() -> None:
    certain, even = torch.tensor([[0.0, -1e4, -1e4, -1e4]]).double(), torch.zeros(1, 4).double()
    weights = power_sum(torch.cat([certain, even]).log_softmax(1), 0.25)
    assert weights.tolist() == pytest.approx([1, 4**0.75])
    assert power_sum(ZT.log_softmax(1), 1.0).tolist() == pytest.approx([1] * 4)  # then WTTM is TTM


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.01, 0.2, 5.0])
def test_logits_of_ten_thousand_give_finite_values_and_gradients(dtype: torch.dtype, gamma: float) -> None:
    row = torch.tensor([1e4, -1e4, 0, 1e4], dtype=dtype)
    for term in (TTM(gamma), WTTM(gamma)):
        zs = row.repeat(4, 1).requires_grad_()
        total = term(outputs(zs), outputs(torch.stack([row.roll(i) for i in range(4)])), batch(Y))
        total.backward()
        assert total.isfinite()
        assert zs.grad is not None and zs.grad.isfinite().all()


@pytest.mark.parametrize("cls", [TTM, WTTM])
def test_gradients_are_those_of_finite_differences_and_reach_no_teacher(cls: type[TTM]) -> None:
    zt = ZT.clone().requires_grad_()

    def loss(zs: Tensor) -> Tensor:
        return cls(0.3)(outputs(zs), outputs(zt), batch(Y))

    assert torch.autograd.gradcheck(loss, ZS.clone().requires_grad_())
    loss(ZS.clone().requires_grad_()).backward()
    assert zt.grad is None


def test_several_teachers_weigh_a_sample_by_the_mean_of_their_weights() -> None:
    teachers, weights = (ZT, ZT.flip(1)), (0.25, 0.75)
    p = sum(w * (z / 5).softmax(1) for w, z in zip(weights, teachers, strict=True))
    smoothness = sum(w * (z.softmax(1) ** 0.2).sum(1) for w, z in zip(weights, teachers, strict=True))
    assert isinstance(p, Tensor)
    expected = (smoothness * (p * (p.log() - ZS.log_softmax(1))).sum(1)).mean()
    loss = WTTM(0.2).together(outputs(ZS), [outputs(z) for z in teachers], weights, batch(Y))
    assert float(loss) == pytest.approx(float(expected), rel=1e-9)


def test_the_formula_shows_every_number() -> None:
    assert TTM(0.1).formula() == "KL(p_t^γ/Σp_t^γ ‖ p_s; γ=0.1)"
    assert WTTM(0.2, standardize=True).formula() == "Σp_t^γ·KL(p_t^γ/Σp_t^γ ‖ p_s; γ=0.2; z-scores)"


@pytest.mark.parametrize("name", ["ttm", "wttm"])
@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
def test_a_power_that_is_not_above_zero_is_refused(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.{name}: gamma must be a finite number above 0, got {bad}"):
        build({name: node(name) | {"gamma": bad}})
