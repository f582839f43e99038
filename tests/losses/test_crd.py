"""Contrastive distillation: banks, negatives, and the contrast between them.

It is long because a loss has one file of tests, and this one has memory that a training must write, keep and restore.
"""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.base import Setting
from kdrun.losses.crd import CRD, DENSE, blocks, contrast, dense, gathered, remember
from kdrun.models.base import Outputs

from .given import ZS, ZT, outputs, setting

LABELS = torch.tensor([2, 0, -1, 1, 0, 2, 2, -1, 0, 2])
SETTING = Setting(len(LABELS), 3, LABELS)

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def embedded(e: Tensor) -> Outputs:
    return Outputs(torch.zeros(len(e), 5), {}, {}, e)


def batch(*indices: int) -> Batch:
    return Batch(torch.zeros(len(indices), 1, 8, 8), LABELS[list(indices)], torch.tensor(indices), 0)


def prepared(seed: int = 0, given: Setting = SETTING, **numbers: int | float) -> CRD:
    """A small term on students of width 4 and teachers of width 6, in float64."""
    torch.manual_seed(seed)
    term = CRD(**({"feature_dim": 8, "negatives": 50} | numbers))
    term.prepare(embedded(torch.zeros(2, 4)), embedded(torch.zeros(2, 6)), given)
    return term.double()


def step(term: CRD, seed: int, *indices: int) -> Tensor:
    """The term on some batch of these images."""
    n = len(indices)
    loss: Tensor = term(embedded(normal(seed, n, 4)), embedded(normal(seed + 1, n, 6)), batch(*indices))
    return loss.detach()


def published(p: Tensor, num_samples: int) -> Tensor:
    """The contrast as it is written in the published code, from probabilities."""
    noise = (p.shape[1] - 1) / num_samples
    positive = (p[:, 0] / (p[:, 0] + noise + 1e-7)).log()
    negative = (noise / (p[:, 1:] + noise + 1e-7)).log()
    return -(positive.sum() + negative.sum()) / len(p)


def test_the_contrast_gives_the_value_of_its_published_implementation() -> None:
    p = torch.tensor([[0.5, 0.1, 0.2], [0.3, 0.4, 0.6]], dtype=torch.float64)
    assert float(contrast(p.log(), 10).mean()) == pytest.approx(2.2154090084, rel=1e-10)
    assert float(published(p, 10)) == pytest.approx(2.2154090084, rel=1e-10)


@some
@given(seeds, st.integers(1, 5), st.integers(1, 9), st.integers(2, 10**6), st.floats(0.1, 10))
def test_the_contrast_is_the_published_one_from_logarithms(s: int, n: int, m: int, of: int, size: float) -> None:
    log_p = size * normal(s, n, 1 + m) - math.log(of)
    assert float(contrast(log_p, of).mean()) == pytest.approx(float(published(log_p.exp(), of)), rel=1e-6)


def test_the_contrast_stays_finite_where_probabilities_would_overflow() -> None:
    log_p = torch.tensor([[900.0, -900.0], [-900.0, 900.0]], requires_grad=True)
    loss = contrast(log_p, 50000)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert log_p.grad is not None
    assert log_p.grad.tolist() == [[0, 0], [-1, 1]]


def test_a_likelier_positive_costs_less_and_a_likelier_negative_more() -> None:
    log_p = torch.full((1, 3), -2.0, requires_grad=True)
    contrast(log_p, 10).sum().backward()
    assert log_p.grad is not None
    assert log_p.grad[0, 0] < 0 < log_p.grad[0, 1]


@pytest.mark.parametrize("similarities", [dense, gathered])
def test_gradients_are_those_of_finite_differences_while_banks_and_negatives_stay(
    similarities: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> None:
    bank, drawn = F.normalize(normal(0, 10, 8)), torch.randint(10, (3, 6), generator=torch.Generator().manual_seed(1))

    def loss(e: Tensor) -> Tensor:
        return contrast(similarities(F.normalize(e), bank, drawn) / 0.07 - 3, 10)

    assert torch.autograd.gradcheck(loss, (normal(2, 3, 8).requires_grad_(),))


def test_the_gradient_of_a_step_is_that_of_the_banks_before_they_are_written() -> None:
    gradients = []
    for train in (True, False):
        term, e_s = prepared().train(train), normal(1, 3, 4).requires_grad_()
        term(embedded(e_s), embedded(normal(2, 3, 6)), batch(0, 3, 4)).backward()
        assert e_s.grad is not None
        gradients.append(e_s.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("train", [True, False])
def test_the_product_with_the_whole_bank_and_the_drawn_rows_give_the_same(train: bool) -> None:
    losses, gradients = [], []
    for similarities in (dense, gathered):
        term = prepared().train(train)
        term.similarities = similarities
        e_s = normal(1, 3, 4).requires_grad_()
        loss = term(embedded(e_s), embedded(normal(2, 3, 6)), batch(0, 3, 4))
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([e_s.grad.flatten(), *(p.grad.flatten() for p in term.parameters())]))
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_rows_are_read_one_by_one_only_from_banks_much_larger_than_a_draw() -> None:
    for n, similarities in ((DENSE * 6, dense), (DENSE * 6 + 1, gathered)):
        assert prepared(given=setting(n), negatives=5).similarities is similarities


def test_three_steps_are_those_of_the_published_code_with_the_same_draws() -> None:
    """Banks and constants carried along as there: compare, divide by Z, then write the rows."""
    term = prepared()
    banks = [term.teacher_bank.clone(), term.student_bank.clone()]  # what the student and the teacher meet
    z: list[Tensor] = []
    for number, indices in enumerate(([0, 3, 4], [3, 4, 7], [9, 1])):
        n = len(indices)
        e_s, e_t = normal(10 + number, n, 4), normal(20 + number, n, 6)
        state = torch.get_rng_state()
        loss = term(embedded(e_s), embedded(e_t), batch(*indices)).detach()
        torch.set_rng_state(state)
        drawn = torch.cat([torch.tensor(indices)[:, None], term.draw(torch.tensor(indices))], dim=1)
        anchors = [term.embed_student(e_s).detach(), term.embed_teacher(e_t).detach()]
        anchors = [e / e.square().sum(1, keepdim=True).sqrt() for e in anchors]
        scores = [
            (torch.einsum("nkd,nd->nk", bank[drawn], e) / 0.07).exp() for bank, e in zip(banks, anchors, strict=True)
        ]
        z = z or [p.mean() * len(LABELS) for p in scores]
        expected = sum(float(published(p / constant, len(LABELS))) for p, constant in zip(scores, z, strict=True))
        assert float(loss) == pytest.approx(expected, rel=1e-6)
        for bank, e in zip(banks, reversed(anchors), strict=True):
            moved = 0.5 * bank[indices] + 0.5 * e
            bank[indices] = moved / moved.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(banks, [term.teacher_bank, term.student_bank], rtol=1e-9, atol=1e-12)


def test_constants_are_estimated_at_the_first_step_and_kept() -> None:
    term = prepared()
    assert not term.estimated
    step(term, 1, 0, 3, 4)
    first = term.log_z.clone()
    step(term, 5, 2, 5, 6)
    assert term.estimated
    assert torch.equal(term.log_z, first)


def test_negatives_are_never_of_the_own_class_and_all_others_are_equally_likely() -> None:
    term = prepared(negatives=40000)
    everyone = torch.arange(len(LABELS))
    for index, drawn in enumerate(term.draw(everyone)):
        label = LABELS[index]
        others = (label != LABELS) if label >= 0 else (everyone != index)
        counts = drawn.bincount(minlength=len(LABELS))
        assert not counts[~others].any()
        expected = 40000 / int(others.sum())
        assert (counts[others] - expected).abs().max() < 5 * expected**0.5


@some
@given(st.lists(st.integers(-1, 3), min_size=2, max_size=12))
def test_blocks_are_where_each_class_lies_and_an_unlabelled_image_is_its_own(given: list[int]) -> None:
    labels = torch.tensor(given)
    if len(set(given)) == 1 and given[0] >= 0:
        with pytest.raises(ValueError, match=f"all {len(given)} training images are of one class"):
            blocks(labels)
        return
    made = blocks(labels)
    for index, (start, size) in enumerate(zip(made["own_start"].tolist(), made["own_size"].tolist(), strict=True)):
        own = made["order"][start : start + size].tolist()
        assert own == ([i for i, label in enumerate(given) if label == given[index]] if given[index] >= 0 else [index])


def test_a_training_set_without_negatives_is_refused() -> None:
    with pytest.raises(ValueError, match=r"all 6 training images are of one class.*two classes or more"):
        prepared(given=Setting(6, 3, torch.full((6,), 4)))
    with pytest.raises(ValueError, match="all 1 training images"):
        prepared(given=Setting(1, 1, torch.tensor([-1])))
    prepared(given=Setting(6, 3, torch.full((6,), -1)))


def test_a_step_writes_the_rows_of_its_own_images_and_no_others() -> None:
    term = prepared()
    before = {name: term.get_buffer(name).clone() for name in ("student_bank", "teacher_bank")}
    step(term, 1, 6, 0, 3)
    for name, old in before.items():
        changed = (term.get_buffer(name) != old).any(1)
        assert changed.nonzero().flatten().tolist() == [0, 3, 6]
        assert term.get_buffer(name)[[0, 3, 6]].norm(dim=1).tolist() == pytest.approx([1.0] * 3)


def test_a_row_moves_by_one_minus_momentum_and_is_brought_to_length_one() -> None:
    bank = torch.tensor([[0.0, 1], [1, 0], [0, 1]], dtype=torch.float64)
    remember(bank, torch.tensor([1]), torch.tensor([[0.0, 1]], dtype=torch.float64), momentum=0.75)
    assert bank.tolist() == [[0, 1], pytest.approx([0.75 / 0.625**0.5, 0.25 / 0.625**0.5]), [0, 1]]


def test_evaluation_changes_nothing_that_is_remembered() -> None:
    term = prepared().eval()
    before = {name: value.clone() for name, value in term.state_dict().items()}
    assert step(term, 1, 0, 3, 4).isfinite()
    assert all(torch.equal(value, before[name]) for name, value in term.state_dict().items())


def test_a_restored_term_continues_bit_for_bit() -> None:
    term, restored = prepared(0), prepared(1)
    step(term, 1, 0, 3, 4)
    restored.load_state_dict(term.state_dict())
    values = []
    for one in (term, restored):
        torch.manual_seed(7)
        values.append([step(one, seed, *indices) for seed, indices in ((3, (1, 2, 3)), (5, (0, 4, 9)))])
    assert values[0] == values[1]
    assert all(torch.equal(value, restored.state_dict()[name]) for name, value in term.state_dict().items())


def test_projections_are_trained_and_kept_banks_only_remembered() -> None:
    term = prepared()
    projections = {f"embed_{side}.{kind}" for side in ("student", "teacher") for kind in ("weight", "bias")}
    assert {name for name, _ in term.named_parameters()} == projections
    assert set(term.state_dict()) == projections | set(term.banks)
    assert {"student_bank", "teacher_bank"} <= set(term.banks)
    term(embedded(normal(1, 3, 4)), embedded(normal(2, 3, 6)), batch(0, 3, 4)).backward()
    assert all(p.grad is not None and p.grad.any() for p in term.parameters())


@pytest.mark.parametrize(("n", "similarities"), [(40, dense), (400, gathered)])
def test_the_memory_is_that_of_the_buffers_and_of_what_a_step_compares(n: int, similarities: object) -> None:
    given = setting(n)
    term = CRD(feature_dim=16, negatives=20)
    student, teacher = outputs(ZS.float()), outputs(ZT.float())
    memory = term.memory(student, teacher, given)
    term.prepare(student, teacher, given)
    assert term.similarities is similarities
    buffers = sum(buffer.nbytes for buffer in term.buffers())
    drawn = 4 * 21
    rows = 4 * n + 16 * n if similarities is dense else 16 * drawn
    assert memory == buffers + 8 * drawn + 2 * 4 * (drawn + rows)


def test_banks_of_fifty_thousand_images_take_what_the_paper_says() -> None:
    """Two banks of 128 numbers, and one batch of 64 against 16,384 negatives: far from the gigabyte of rows."""
    memory = CRD().memory(outputs(ZS), outputs(ZT), Setting(50000, 64, torch.arange(50000) % 100))
    banks, copies, similarities = 2 * 50000 * 128 * 4, 2 * 50000 * 128 * 4, 2 * 64 * 50000 * 4
    assert memory == pytest.approx(banks + copies + similarities, rel=0.25)


def test_nothing_waits_for_the_device_at_any_step() -> None:
    """Tensors without data: whatever asked one for its value would raise."""
    for similarities in (dense, gathered):
        term = prepared().to("meta")
        term.similarities = similarities
        for _ in range(2):
            given = batch(0, 3, 4)._replace(indices=torch.tensor([0, 3, 4], device="meta"))
            student = embedded(torch.zeros(3, 4, dtype=torch.float64, device="meta", requires_grad=True))
            loss = term(student, embedded(torch.zeros(3, 6, dtype=torch.float64, device="meta")), given)
            loss.backward()
            assert loss.shape == ()


def test_a_student_can_learn_the_teachers_view_of_each_image() -> None:
    """Twenty steps on ten images: the positives win over the negatives."""
    term = prepared(negatives=200)
    e_s, e_t = normal(1, 10, 4).requires_grad_(), normal(2, 10, 6)
    optimizer = torch.optim.SGD([e_s, *term.parameters()], lr=0.5)
    everyone = batch(*range(10))
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = term(embedded(e_s), embedded(e_t), everyone)
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.9 * values[0]


def test_other_layers_are_compared_by_name() -> None:
    term = CRD(feature_dim=16, negatives=20, student_layer="stage1", teacher_layer="logits")
    term.prepare(outputs(ZS), outputs(ZT), setting())
    assert (term.embed_student.in_features, term.embed_teacher.in_features) == (3 * 8 * 8, 5)
    with pytest.raises(ValueError, match=r"the student's network has no layer stage9.*embedding, logits"):
        CRD(student_layer="stage9").prepare(outputs(ZS), outputs(ZT), setting())


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"feature_dim": 0}, "feature_dim must be a whole number of at least 1, got 0"),
        ({"negatives": 0}, "negatives must be a whole number of at least 1, got 0"),
        ({"tau": 0.0}, "tau must be a finite number above 0, got 0.0; 0.07 is usual"),
        ({"tau": math.inf}, "tau must be a finite number above 0, got inf"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, got 1.0; 0.5 is usual"),
        ({"momentum": -0.1}, "momentum must be at least 0 and below 1, got -0.1"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(numbers: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CRD(**numbers)  # type: ignore[arg-type]


def test_the_formula_shows_every_number() -> None:
    assert CRD().formula() == "CRD(e_t, e_s; K≤16384, τ=0.07, m=0.5, d=128)"


def test_as_many_negatives_as_the_paper_has_and_at_most_half_of_a_small_set() -> None:
    assert CRD().drawn(setting(50_000)) == CRD().drawn(setting(32_768)) == 16384
    assert CRD().drawn(setting(1_293)) == 646
    assert CRD(negatives=7).drawn(setting(50_000)) == 7
