"""RLD: its golden values, its kinship with DKD, and what it does where the teacher is wrong."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.losses import build
from kdrun.losses.dkd import DKD
from kdrun.losses.rld import RLD, masked_correlation, sample_confidence

from .given import ZS, ZT, Y, batch, node, outputs

CONFIDENCE, CORRELATION = 1.3895533975, 14.2825663747  # at α_T = 1; at T = 4 with β = 8
GOLDEN = 15.6721197723

some = settings(max_examples=20, deadline=None, derandomize=True)
seeds, sizes, classes = st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 8)


def value(term: RLD | DKD, zs: Tensor = ZS, zt: Tensor = ZT, y: Tensor = Y, epoch: int = 99) -> float:
    return float(term(outputs(zs), outputs(zt), batch(y, epoch)))


def drawn(seed: int, n: int, c: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a student and of a teacher, (n, c), and labels."""
    generator = torch.Generator().manual_seed(seed)
    zs, zt = 3 * torch.randn(2, n, c, generator=generator, dtype=torch.float64)
    return zs, zt, torch.randint(c, (n,), generator=generator)


@pytest.mark.parametrize(
    ("term", "golden"),
    [
        (RLD(4), GOLDEN),
        (RLD(4, alpha_T=4), 16.0724177666),
        (RLD(4, beta=0), CONFIDENCE),
        (RLD(4, alpha=0), CORRELATION),
        (RLD(4, alpha=0.5, beta=4), (CONFIDENCE + CORRELATION) / 2),
        (RLD(4, T_squared=False), CONFIDENCE + CORRELATION / 16),
        (RLD(4, alpha_T=4, T_squared=False), 16.0724177666 / 16),
    ],
    ids=lambda case: case.formula() if isinstance(case, RLD) else "",
)
def test_the_parts_and_their_sum_give_the_values_of_the_published_implementation(term: RLD, golden: float) -> None:
    assert value(term) == pytest.approx(golden, rel=1e-9)


def test_the_yaml_is_the_published_setting_with_its_warm_up() -> None:
    objective = build({"rld": node("rld")})
    for epoch, share in {0: 1 / 20, 9: 0.5, 19: 1, 239: 1}.items():
        total, _ = objective(outputs(ZS), [outputs(ZT)], batch(Y, epoch))
        assert float(total) == pytest.approx(share * GOLDEN, rel=1e-9)
    assert value(RLD(4, warmup_epochs=0), epoch=0) == pytest.approx(GOLDEN, rel=1e-9)
    assert "hard_weight" not in node("rld")  # so that the labels weigh 1


@some
@given(seeds, sizes, classes, st.floats(0.3, 10))
def test_of_a_teacher_that_is_right_it_is_dkd(seed: int, n: int, c: int, T: float) -> None:
    zs, zt, _ = drawn(seed, n, c)
    y = zt.argmax(1)
    dkd, rld = DKD(T, alpha=2, beta=3), RLD(T, alpha=2, beta=3, alpha_T=T)
    assert value(rld, zs, zt, y) == pytest.approx(value(dkd, zs, zt, y), rel=1e-9, abs=1e-12)


@some
@given(seeds, sizes, classes)
def test_it_is_zero_for_a_student_that_equals_a_teacher_that_is_right_and_never_less(seed: int, n: int, c: int) -> None:
    zs, zt, y = drawn(seed, n, c)
    assert value(RLD(4), zt + 3, zt, zt.argmax(1)) == pytest.approx(0, abs=1e-12)
    assert value(RLD(4), zs, zt, y) >= -1e-12


def test_where_the_teacher_is_wrong_its_confidence_goes_to_the_label_and_only_what_lies_below_it_is_compared() -> None:
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64)
    q, y = torch.tensor([[0.1, 0.5, 0.2, 0.2]], dtype=torch.float64), torch.tensor([1])
    assert float(sample_confidence(p.log(), q.log(), y)) == pytest.approx(0, abs=1e-12)  # 0.5 for 0.5
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(masked_correlation(p.log(), q.log(), y)) == pytest.approx(expected, rel=1e-9)
    zs = q.log().requires_grad_()
    value_there = RLD(1, alpha=0, beta=1, warmup_epochs=0)(outputs(zs), outputs(p.log()), batch(y))
    value_there.backward()
    assert zs.grad is not None
    assert zs.grad[0, :2].tolist() == pytest.approx([0, 0], abs=1e-12)


def test_a_sample_with_no_class_below_its_label_has_no_correlation_and_no_gradient_of_it() -> None:
    """The label's class is the last of the teacher's, and in the second row as far back as another."""
    zt = torch.tensor([[3.0, 2, 1, 0], [1, 1, 2, 3], [0, 1, 2, 3]]).double()
    zs = torch.tensor([[0.0, 1, 2, 3]], dtype=torch.float64).repeat(3, 1).requires_grad_()
    term = RLD(4, alpha=0, warmup_epochs=0)
    loss = term(outputs(zs), outputs(zt), batch(torch.tensor([3, 0, 3])))
    loss.backward()
    assert zs.grad is not None and zs.grad.isfinite().all()
    assert zs.grad.abs().sum(1).tolist() == pytest.approx([0, 0, 0], abs=1e-12)  # the third row is the teacher's own
    assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
    moved = term(outputs(zs.detach() + torch.tensor([1.0, 0, 0, 0])), outputs(zt), batch(torch.tensor([3, 0, 3])))
    assert float(moved) > 0.1  # by the third row alone


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("T", [0.1, 4.0])
def test_logits_of_ten_thousand_give_finite_values_and_gradients_whichever_class_is_the_target(
    dtype: torch.dtype, T: float
) -> None:
    row = torch.tensor([1e4, -1e4, 0, 1e4], dtype=dtype)
    zs, zt = row.repeat(5, 1).requires_grad_(), torch.stack([row.roll(i) for i in range(5)])
    total = RLD(T)(outputs(zs), outputs(zt), batch(torch.tensor([0, 1, 2, 3, -1]), 99))
    total.backward()
    assert total.isfinite()
    assert zs.grad is not None and zs.grad.isfinite().all()


def test_unlabelled_samples_neither_count_nor_dilute_nor_get_a_gradient() -> None:
    zs = ZS.clone().requires_grad_()
    loss = RLD(4)(outputs(zs), outputs(ZT), batch(torch.tensor([0, -1, 2, -1]), 99))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(value(RLD(4), ZS[::2], ZT[::2], Y[::2]), rel=1e-12)
    assert zs.grad is not None
    assert zs.grad.abs().sum(1).bool().tolist() == [True, False, True, False]
    assert value(RLD(4), y=torch.full((4,), -1)) == 0


def test_gradients_are_those_of_finite_differences_and_reach_no_teacher() -> None:
    zt = ZT.clone().requires_grad_()
    y = torch.tensor([3, -1, int(ZT[2].argmin()), 4])  # the third row has no class below its label

    def loss(zs: Tensor) -> Tensor:
        return RLD(4)(outputs(zs), outputs(zt), batch(y, 99))

    assert torch.autograd.gradcheck(loss, ZS.clone().requires_grad_())
    loss(ZS.clone().requires_grad_()).backward()
    assert zt.grad is None


@pytest.mark.parametrize(
    ("term", "formula"),
    [
        (RLD(4), "min(epoch/20, 1)·[1·confidence(T=1) + 8·4²·correlation(T=4)](p_t ‖ p_s)"),
        (RLD(4, alpha_T=2, warmup_epochs=0), "[1·2²·confidence(T=2) + 8·4²·correlation(T=4)](p_t ‖ p_s)"),
        (
            RLD(4, student_T=2, warmup_epochs=0, standardize=True),
            "[1·confidence(T=1) + 8·2²·correlation(T=4 and 2)](p_t ‖ p_s; z-scores)",
        ),
    ],
)
def test_the_formula_shows_every_number(term: RLD, formula: str) -> None:
    assert term.formula() == formula


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf])
def test_a_number_out_of_range_is_refused_by_its_name(bad: float) -> None:
    for key in ("alpha", "beta", "warmup_epochs"):
        with pytest.raises(ValueError, match=rf"^loss\.rld: {key} must be a finite number of at least 0, got {bad}"):
            build({"rld": node("rld") | {key: bad}})
    with pytest.raises(ValueError, match=rf"^loss\.rld: alpha_T must be a finite number above 0, got {bad}"):
        build({"rld": node("rld") | {"alpha_T": bad}})
