"""Z-scores: the loss `ls`, and `standardize` on every term that has it."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build, find
from kdrun.losses.base import z_scores

from .given import NAMES, ZS, ZT, Y, arguments, batch, node, outputs

SOFT = [name for name in NAMES if "standardize" in arguments(name) and not find(node(name)["use"]).needs_strong]
some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, sizes, classes = st.integers(0, 10**6), st.integers(2, 4), st.integers(3, 7)
every_soft_term = pytest.mark.parametrize("name", SOFT)


def value(name: str, zs: Tensor = ZS, zt: Tensor = ZT, **changes: object) -> float:
    objective = build({name: node(name) | {"weight": 1.0} | changes}).double()
    labels = torch.arange(len(zs)) % zs.shape[1]
    return float(objective(outputs(zs), [outputs(zt)], batch(labels, epoch=99))[0].detach())


def drawn(seed: int, n: int, c: int) -> Tensor:
    """Logits of a student and of a teacher, (2, n, c)."""
    return 3 * torch.randn(2, n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_soft_term_can_standardise() -> None:
    soft = {"kd", "reverse_kd", "soft_ce", "mse_probs", "ls", "dkd", "dist", "ctkd", "dml", "ca_mkd"}
    assert soft | {"nkd", "ttm", "wttm", "rld", "abkd", "js"} <= set(SOFT)


@pytest.mark.parametrize(("T", "golden"), [(2.0, 0.7442327167), (4.0, 0.7751512525)])
def test_ls_gives_the_value_of_its_published_implementation(T: float, golden: float) -> None:
    assert value("ls", T=T) == pytest.approx(golden, rel=1e-8)
    assert value("kd", T=T, standardize=True) == pytest.approx(golden, rel=1e-8)


def test_ls_alone_has_the_papers_weights_and_temperature() -> None:
    chosen = node("ls")
    assert (chosen["weight"], chosen["hard_weight"], chosen["T"]) == (9.0, 0.1, 2.0)
    total, _ = build({"ls": chosen})(outputs(ZS), [outputs(ZT)], batch(Y))
    assert float(total) == pytest.approx(9 * 0.7442327167, rel=1e-8)


def published_dkd(zs: Tensor, zt: Tensor, y: Tensor, alpha: float, beta: float, T: float) -> Tensor:
    """DKD of standardised logits step by step as published, with torch's own KL and the target pushed down by 1000."""
    zs, zt = ((z - z.mean(-1, keepdim=True)) / (1e-7 + z.std(-1, keepdim=True)) for z in (zs, zt))
    target = F.one_hot(y, zs.shape[1]).bool()
    p, q = F.softmax(zs / T, 1), F.softmax(zt / T, 1)
    p2, q2 = (torch.stack([v[target], (v * ~target).sum(1)], dim=1) for v in (p, q))
    tckd = F.kl_div(p2.log(), q2, reduction="batchmean")
    p3, q3 = F.log_softmax(zs / T - 1000.0 * target, 1), F.softmax(zt / T - 1000.0 * target, 1)
    return T**2 * (alpha * tckd + beta * F.kl_div(p3, q3, reduction="batchmean"))


@pytest.mark.parametrize(("T", "weight", "beta"), [(2.0, 9.0, 8.0), (3.0, 18.0, 2.0), (2.0, 15.0, 2.0)])
def test_dkd_ls_multiplies_both_parts_of_dkd_by_the_weight(T: float, weight: float, beta: float) -> None:
    chosen = node("dkd_ls") | {"T": T, "weight": weight, "beta": beta}
    total, _ = build({"dkd_ls": chosen}).double()(outputs(ZS), [outputs(ZT)], batch(Y, epoch=99))
    assert float(total) == pytest.approx(float(published_dkd(ZS, ZT, Y, weight, weight * beta, T)), rel=1e-9)


def test_dkd_with_standardize_alone_is_another_loss() -> None:
    """A temperature of 4 and no weight: what its paper's tables call DKD+LS is dkd_ls."""
    alone = build({"dkd": node("dkd") | {"standardize": True}}).double()
    total, _ = alone(outputs(ZS), [outputs(ZT)], batch(Y, epoch=99))
    published, _ = build({"dkd_ls": node("dkd_ls")}).double()(outputs(ZS), [outputs(ZT)], batch(Y, epoch=99))
    assert float(published) > 5 * float(total)
    assert (node("dkd_ls")["T"], node("dkd_ls")["weight"], node("dkd_ls")["beta"]) == (2.0, 9.0, 8.0)
    assert "hard_weight" not in node("dkd_ls")  # so that the labels weigh 1


def test_a_row_of_z_scores_has_mean_zero_and_an_unbiased_deviation_of_one() -> None:
    z = z_scores(torch.tensor([[1.0, 2.0, 3.0, 6.0]], dtype=torch.float64))
    assert z[0].tolist() == pytest.approx([-0.925820, -0.462910, 0, 1.388730], abs=1e-6)  # (z − 3) / √(14/3)
    torch.testing.assert_close(z_scores(ZS).mean(1), torch.zeros(4).double())
    torch.testing.assert_close(z_scores(ZS).std(1), torch.ones(4).double(), rtol=1e-6, atol=0)


@every_soft_term
@some
@given(seeds, sizes, classes, st.floats(0.2, 50), st.floats(-100, 100), st.floats(0.2, 50), st.floats(-100, 100))
def test_neither_the_scale_nor_the_mean_of_either_sides_logits_matters(
    name: str, seed: int, n: int, c: int, scale_s: float, shift_s: float, scale_t: float, shift_t: float
) -> None:
    if name == "ca_mkd":
        scale_t, shift_t = 1.0, 0.0  # one teacher is heard in full, but its confidence is that of its own logits
    zs, zt = drawn(seed, n, c)
    moved = value(name, scale_s * zs + shift_s, scale_t * zt + shift_t, standardize=True)
    assert moved == pytest.approx(value(name, zs, zt, standardize=True), rel=1e-4, abs=1e-5)


@every_soft_term
@some
@given(seeds, sizes, classes)
def test_it_is_the_plain_term_on_z_scores(name: str, seed: int, n: int, c: int) -> None:
    zs, zt = drawn(seed, n, c)
    plain = value(name, z_scores(zs), z_scores(zt), standardize=False)
    assert value(name, zs, zt, standardize=True) == pytest.approx(plain, rel=1e-12, abs=1e-12)


@every_soft_term
def test_a_row_of_equal_logits_gives_finite_values_and_gradients(name: str) -> None:
    zs = torch.zeros(4, 5, dtype=torch.float32, requires_grad=True)
    objective = build({name: node(name) | {"weight": 1.0, "standardize": True}})
    total, _ = objective(outputs(zs), [outputs(ZT.float())], batch(Y))
    total.backward()
    assert total.isfinite()
    assert zs.grad is not None and zs.grad.isfinite().all()


@every_soft_term
def test_the_formula_says_so(name: str) -> None:
    sentence = build({name: node(name) | {"standardize": True}}).formula()
    assert "z-scores" in sentence
    assert "z-scores" not in build({name: node(name) | {"standardize": False}}).formula()
