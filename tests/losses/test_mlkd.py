"""MLKD: the golden values of its parts, its masks, the released form, and the labels of both views."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build, refuse_mixing, strong_view
from kdrun.losses.base import z_scores
from kdrun.losses.mlkd import MLKD, less_sure, levels
from kdrun.models.base import Outputs

from .given import ZS, ZT, Y, batch, node, outputs, setting

TEMPERATURES = (2.0, 3.0, 4.0, 5.0, 6.0)
STRONG_S, STRONG_T = ZS.flip(0) + 0.3, ZT.flip(0) * 0.8  # what both say to the strong view

some = settings(max_examples=20, deadline=None, derandomize=True)


def views(weak: Tensor, strong: Tensor) -> Outputs:
    return outputs(weak)._replace(strong=outputs(strong))


def value(term: MLKD, s: tuple[Tensor, Tensor] = (ZS, STRONG_S), t: tuple[Tensor, Tensor] = (ZT, STRONG_T)) -> float:
    return float(term(views(*s), views(*t), batch(Y)))


def kd(z_s: Tensor, z_t: Tensor, T: float) -> Tensor:
    """Per sample, by torch's own."""
    return T**2 * F.kl_div((z_s / T).log_softmax(1), (z_t / T).softmax(1), reduction="none").sum(1)


def frobenius(p: Tensor, q: Tensor) -> Tensor:
    """The squared differences of the matrices of inner products of rows."""
    return (torch.einsum("ik,jk->ij", p, p) - torch.einsum("ik,jk->ij", q, q)).square()


def test_the_parts_give_the_values_of_the_published_implementation() -> None:
    at_four = [float(level.mean()) for level in levels(ZS, ZT, 4.0)]
    assert at_four == pytest.approx([2.8564529605, 0.0030763687, 0.0056132935], rel=1e-8, abs=1e-10)
    summed = [sum(float(levels(ZS, ZT, T)[i].mean()) for T in TEMPERATURES) for i in range(3)]
    assert summed == pytest.approx([13.8241056613, 0.0329458490, 0.0456407738], rel=1e-8, abs=1e-10)


def test_the_weak_view_counts_the_half_of_which_the_teacher_is_less_sure_and_the_strong_view_in_full() -> None:
    p = ZT.softmax(1)
    samples = p.amax(1) <= torch.quantile(p.amax(1), 0.5)
    classes = p.sum(0) <= torch.quantile(p.sum(0), 0.5)
    assert (int(samples.sum()), int(classes.sum())) == (2, 3)
    expected = 0.0
    for T in TEMPERATURES:
        p, q = (ZT / T).softmax(1), (ZS / T).softmax(1)
        expected += float(kd(ZS, ZT, T)[samples].sum() / 4 + frobenius(p, q)[samples].sum() / 4)
        expected += float(frobenius(p.T, q.T)[classes].sum() / 5)
        p, q = (STRONG_T / T).softmax(1), (STRONG_S / T).softmax(1)
        expected += float(kd(STRONG_S, STRONG_T, T).mean() + frobenius(p, q).sum() / 4 + frobenius(p.T, q.T).sum() / 5)
    assert value(MLKD()) == pytest.approx(expected, rel=1e-9)
    assert value(MLKD([3, 5])) < value(MLKD())


def test_the_released_form_is_the_released_codes() -> None:
    """Line by line: `(loss(weak) * mask).mean()` where the loss is a number, and 2 and 6 of the strong view."""
    p = ZT.softmax(1)
    mask = p.amax(1) <= torch.quantile(p.amax(1), 0.5)
    class_mask = p.sum(0) <= torch.quantile(p.sum(0), 0.5)
    expected = 0.0
    for T in TEMPERATURES:
        p, q = (ZT / T).softmax(1), (ZS / T).softmax(1)
        expected += float((kd(ZS, ZT, T).mean() * mask).mean())
        expected += float((frobenius(p, q).sum() / 4 * mask).mean())
        expected += float((frobenius(p.T, q.T).sum() / 5 * class_mask).mean())
        strong = (ZS, ZT) if T in (2, 6) else (STRONG_S, STRONG_T)
        expected += float(kd(*strong, T).mean())
    assert value(MLKD(released=True)) == pytest.approx(expected, rel=1e-9)
    assert value(MLKD(released=True)) != pytest.approx(value(MLKD()), rel=0.01)


@pytest.mark.parametrize("released", [False, True])
def test_of_standardised_logits_kd_alone_is_that_of_z_scores(released: bool) -> None:
    kd_of, *relations_of = levels(ZS, ZT, 4.0, standardize=True)
    torch.testing.assert_close(kd_of, levels(z_scores(ZS), z_scores(ZT), 4.0)[0])
    for here, plain in zip(relations_of, levels(ZS, ZT, 4.0)[1:], strict=True):
        assert torch.equal(here, plain)
    assert value(MLKD(released=released, standardize=True)) < value(MLKD(released=released))


@some
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(2, 7), st.booleans())
def test_it_is_zero_for_a_student_that_equals_the_teacher_and_never_less(
    seed: int, n: int, c: int, released: bool
) -> None:
    zs, zt = 3 * torch.randn(2, n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    term = MLKD(released=released)
    assert value(term, (zt + 1, zs - 2), (zt, zs)) == pytest.approx(0, abs=1e-12)
    assert value(term, (zs, zt), (zt, zs)) >= -1e-12


def test_half_of_the_values_are_less_sure_than_the_others() -> None:
    assert less_sure(torch.tensor([0.9, 0.2, 0.5, 0.7])).tolist() == [False, True, True, False]
    assert less_sure(torch.tensor([0.9, 0.2, 0.5])).tolist() == [False, True, True]
    assert less_sure(torch.tensor([0.5, 0.5, 0.5, 0.9])).tolist() == [True, True, True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("released", [False, True])
def test_logits_of_ten_thousand_give_finite_values_and_gradients_in_at_least_float32(
    dtype: torch.dtype, released: bool
) -> None:
    row = torch.tensor([1e4, -1e4, 0, 1e4], dtype=dtype)
    zs, zt = row.repeat(4, 1).requires_grad_(), torch.stack([row.roll(i) for i in range(4)])
    total = MLKD(released=released)(views(zs, zs.flip(1)), views(zt, zt.flip(0)), batch(Y))
    total.backward()
    assert total.isfinite()
    assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert zs.grad is not None and zs.grad.isfinite().all()


@pytest.mark.parametrize("released", [False, True])
def test_gradients_are_those_of_finite_differences_and_reach_no_teacher(released: bool) -> None:
    zt = ZT.clone().requires_grad_()

    def loss(weak: Tensor, strong: Tensor) -> Tensor:
        return MLKD([2.0, 4.0], released)(views(weak, strong), views(zt, 2 * zt), batch(Y))

    assert torch.autograd.gradcheck(loss, (ZS.clone().requires_grad_(), STRONG_S.clone().requires_grad_()))
    loss(ZS.clone().requires_grad_(), STRONG_S).backward()
    assert zt.grad is None


def test_nothing_waits_for_the_device() -> None:
    given = [x.to("meta") for x in (ZS, STRONG_S, ZT, STRONG_T)]
    for released in (False, True):
        total = MLKD(released=released)(views(*given[:2]), views(*given[2:]), batch(Y.to("meta")))
        assert total.shape == ()


def test_without_a_strong_view_it_is_refused_before_it_trains() -> None:
    objective = build({"mine": {"use": "mlkd.MLKD", "weight": 1.0}})
    with pytest.raises(ValueError, match=r"^loss\.mine: MLKD compares two views .* the student's outputs hold one"):
        objective.prepare(outputs(ZS), [outputs(ZT)], setting())
    with pytest.raises(ValueError, match="the teacher's outputs hold one"):
        objective.prepare(views(ZS, STRONG_S), [outputs(ZT)], setting())
    objective.prepare(views(ZS, STRONG_S), [views(ZT, STRONG_T)], setting())


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1, "class_weights": "balanced"}])
def test_the_labels_cross_entropy_is_that_of_both_views_added(settings: dict[str, object]) -> None:
    ce = {"use": "ce.CE", "weight": 1.0, **settings}
    objective = build({"ce": ce, "mlkd": node("mlkd")})
    objective.prepare(views(ZS, STRONG_S), [views(ZT, STRONG_T)], setting())
    labels = torch.tensor([0, 1, -1, 3])
    total, values = objective(views(ZS, STRONG_S), [views(ZT, STRONG_T)], batch(labels))
    share = float(settings.get("label_smoothing", 0.0))
    weights = torch.tensor([0.8, 0.8, 0.8, 1.6, 1.6], dtype=torch.float64) if "class_weights" in settings else None
    expected = sum(
        F.cross_entropy(z, labels, weight=weights, ignore_index=-1, label_smoothing=share) for z in (ZS, STRONG_S)
    )
    torch.testing.assert_close(values["ce"], torch.as_tensor(expected), rtol=1e-6, atol=0)
    torch.testing.assert_close(total, values["ce"] + 0.9 * values["mlkd"])
    smoothed = "; ε=0.1, balanced classes" if settings else ""
    assert objective.formula().startswith(f"[CE(y, p_s{smoothed}) of the weak view + of the strong view] + 0.9·Σ_T [")
    assert float(build({"ce": ce})(outputs(ZS), [], batch(labels))[0]) < float(values["ce"])


def test_the_strong_view_is_that_of_the_term_that_needs_it_and_all_terms_share_it() -> None:
    own, other = node("mlkd"), {**node("mlkd"), "strong": {}}
    ce = {"use": "ce.CE", "weight": 1.0}
    assert strong_view({"ce": ce, "mlkd": own}) == own["strong"]
    assert strong_view({"mlkd": other}) == {}  # augment's own, drawn once more
    assert strong_view({"ce": ce}) is strong_view({}) is None
    with pytest.raises(ValueError, match=r"loss\.a\.strong and loss\.b\.strong differ"):
        strong_view({"a": own, "b": other})
    for missing in (None, {"randaugment": None}):
        with pytest.raises(ValueError, match=r"loss\.mlkd\.strong: must list the augmentations"):
            strong_view({"mlkd": {**own, "strong": missing}})
    with pytest.raises(ValueError, match=r"loss\.kd\.strong: has no effect: kd\.KD does not set needs_strong"):
        strong_view({"kd": {"use": "kd.KD", "strong": {}}})
    with pytest.raises(ValueError, match=r"loss\.mlkd: compares two views of each image, but mixup and cutmix"):
        refuse_mixing({"mlkd": own})


def test_the_formula_shows_every_number() -> None:
    start = "Σ_T [T²·KL + batch + class](p_t, p_s; T="
    assert MLKD().formula() == f"{start}2, 3, 4, 5, 6; weak and strong view; half of the weak view)"
    released = MLKD([4], released=True, standardize=True).formula()
    assert released.startswith(f"{start}4; weak and strong view; as released: ") and released.endswith(
        "KD of z-scores)"
    )


@pytest.mark.parametrize("bad", [[], [0.0], [2.0, -1.0], [math.nan]])
def test_temperatures_that_are_not_above_zero_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="temperatures must be finite numbers above 0, got"):
        MLKD(bad)
