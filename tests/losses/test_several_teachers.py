"""What a term hears from several teachers at once, and how the configuration chooses them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build, find
from kdrun.losses.base import Heard, SoftTerm, Term, kl_divergence, z_scores
from kdrun.losses.kd import KD
from kdrun.losses.mse_probs import ProbabilityMSE
from kdrun.losses.reverse_kd import ReverseKD
from kdrun.losses.soft_ce import SoftCE
from kdrun.models.base import Outputs

from .given import NAMES, ZS, ZT, Y, batch, node, outputs

TEACHERS = (ZT, ZT.flip(1), ZS.flip(0))
HEARS_SEVERAL = [name for name in NAMES if find(node(name)["use"]).hears_several]

some = settings(max_examples=25, deadline=None, derandomize=True)
every_term_that_hears_several = pytest.mark.parametrize("name", HEARS_SEVERAL)


def heard(teachers: tuple[Tensor, ...] = TEACHERS) -> list[Outputs]:
    return [outputs(z) for z in teachers]


def value(name: str, teachers: list[Outputs], weights: list[float], zs: Tensor = ZS, **changes: object) -> float:
    """Through `build`, from the YAML, as a training would."""
    chosen = {"teachers": list(range(len(teachers))), "weights": weights}
    objective = build({name: node(name) | {"weight": 1.0, "heard": chosen} | changes}).double()
    return float(objective(outputs(zs), teachers, batch(Y, epoch=99))[0].detach())


def test_every_soft_term_hears_several_teachers() -> None:
    long_known = {"kd", "reverse_kd", "soft_ce", "mse_probs", "ls", "dkd", "dist", "ctkd", "dml", "ca_mkd"}
    assert long_known | {"nkd", "ttm", "wttm", "rld", "abkd", "js"} <= set(HEARS_SEVERAL)


@some
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 7), st.integers(2, 4), st.floats(0.5, 8), st.booleans())
def test_soft_terms_hear_the_weighted_mean_of_the_softened_probabilities(
    seed: int, n: int, c: int, k: int, T: float, standardize: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    zs, *zt = 5 * torch.randn(k + 1, n, c, generator=generator, dtype=torch.float64)
    weights = torch.rand(k, generator=generator, dtype=torch.float64).softmax(0)

    def p(z: Tensor, T: float) -> Tensor:
        return ((z_scores(z) if standardize else z) / T).softmax(1)

    p_t = sum((w * p(z, T) for w, z in zip(weights, zt, strict=True)), start=torch.zeros(n, c).double())
    p_s = p(zs, T / 2)
    expected = {
        KD: kl_divergence(p_t.log(), p_s.log()).mean(),
        ReverseKD: kl_divergence(p_s.log(), p_t.log()).mean(),
        SoftCE: -(p_t * p_s.log()).sum(1).mean(),
        ProbabilityMSE: (p_s - p_t).square().mean(),
    }
    for cls, direct in expected.items():
        term: SoftTerm = cls(T, student_T=T / 2, standardize=standardize)
        loss = term.together(outputs(zs), heard(tuple(zt)), weights.tolist(), batch(Y))
        assert float(loss) == pytest.approx((T / 2) ** 2 * float(direct), rel=1e-9, abs=1e-12)


@every_term_that_hears_several
def test_a_teacher_heard_alone_is_the_teacher(name: str) -> None:
    term = build({name: node(name) | {"weight": 1.0}}).double().terms[name]
    assert isinstance(term, Term)
    alone = term(outputs(ZS), outputs(ZT), batch(Y, epoch=99))
    assert torch.equal(term.together(outputs(ZS), [outputs(ZT)], [1.0], batch(Y, epoch=99)), alone)
    assert value(name, [outputs(ZT)], [1.0]) == float(alone.detach())


@every_term_that_hears_several
@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.1, 0.9]])
def test_a_teacher_heard_twice_says_what_it_said_once(name: str, weights: list[float]) -> None:
    once, twice = value(name, [outputs(ZT)], [1.0]), value(name, [outputs(ZT)] * 2, weights)
    assert twice == pytest.approx(once, rel=1e-9)


@every_term_that_hears_several
def test_the_order_of_the_teachers_does_not_matter_as_long_as_their_weights_go_with_them(name: str) -> None:
    forward = value(name, heard(), [0.5, 0.3, 0.2])
    assert value(name, heard()[::-1], [0.2, 0.3, 0.5]) == pytest.approx(forward, rel=1e-9)
    assert value(name, heard(), [0.2, 0.3, 0.5]) != pytest.approx(forward, rel=1e-6)


@every_term_that_hears_several
def test_no_gradient_reaches_any_teacher(name: str) -> None:
    zs, zt = ZS.clone().requires_grad_(), [z.clone().requires_grad_() for z in TEACHERS]
    chosen = {"teachers": [0, 1, 2], "weights": [0.5, 0.3, 0.2]}
    objective = build({name: node(name) | {"heard": chosen}}).double()
    objective(outputs(zs), [outputs(z) for z in zt], batch(Y))[0].backward()
    assert zs.grad is not None and zs.grad.abs().max() > 0
    assert all(z.grad is None for z in zt)


@every_term_that_hears_several
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    chosen = {"teachers": [0, 1, 2], "weights": [0.5, 0.3, 0.2]}
    objective = build({name: node(name) | {"weight": 1.0, "heard": chosen}}).double()

    def loss(zs: Tensor) -> Tensor:
        total: Tensor = objective(outputs(zs), heard(), batch(Y))[0]
        return total

    assert torch.autograd.gradcheck(loss, ZS.clone().requires_grad_(), fast_mode=True)


@every_term_that_hears_several
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_teachers_that_contradict_each_other_with_logits_of_ten_thousand_stay_finite(
    name: str, dtype: torch.dtype
) -> None:
    signs = torch.tensor([[1.0, -1, 1, -1], [-1, 1, 1, 1], [1, 1, 1, 1]], dtype=dtype)
    zs = (1e4 * signs).requires_grad_()
    chosen = {"teachers": [0, 1], "weights": [0.999, 0.001]}
    objective = build({name: node(name) | {"weight": 1.0, "heard": chosen}})
    total, _ = objective(outputs(zs), [outputs(-1e4 * signs), outputs(1e4 * signs.flip(1))], batch(Y[:3]))
    total.backward()
    assert total.isfinite()
    assert zs.grad is not None and zs.grad.isfinite().all()


@every_term_that_hears_several
def test_nothing_waits_for_the_device(name: str) -> None:
    chosen = {"teachers": [0, 1, 2], "weights": [0.5, 0.3, 0.2]}
    objective = build({name: node(name) | {"heard": chosen}}).to("meta")
    teachers = [outputs(z.to("meta")) for z in TEACHERS]
    total, _ = objective(outputs(ZS.to("meta")), teachers, batch(Y.to("meta")))
    assert total.shape == ()


def test_a_nodes_heard_chooses_teachers_by_position_and_others_are_never_read() -> None:
    chosen = {"teachers": [2, 0], "weights": [0.75, 0.25]}
    objective = build({"kd": node("kd") | {"weight": 1.0, "heard": chosen}, "soft_ce": node("soft_ce")})
    assert objective.heard == {"kd": Heard((2, 0), (0.75, 0.25)), "soft_ce": Heard()}
    broken = outputs(torch.full_like(ZT, torch.nan))
    _, values = objective(outputs(ZS), [outputs(ZT), broken, outputs(ZT.flip(1))], batch(Y))
    p_t = 0.75 * (ZT.flip(1) / 4).softmax(1) + 0.25 * (ZT / 4).softmax(1)
    expected = 16 * kl_divergence(p_t.log(), (ZS / 4).log_softmax(1)).mean()
    assert float(values["kd"]) == pytest.approx(float(expected), rel=1e-12)
    assert float(values["soft_ce"]) == pytest.approx(float(SoftCE(4)(outputs(ZS), outputs(ZT), batch(Y))), rel=1e-12)
