"""The weighted sum, what `build` refuses, and that terms with parameters, banks and warm-up fit in."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdrun.data.batches import Batch
from kdrun.losses import build, find
from kdrun.losses.base import Objective, Setting, Term
from kdrun.losses.ce import CE
from kdrun.losses.kd import KD
from kdrun.models.base import Outputs

from .given import ZS, ZT, Y, batch, node, outputs, setting


class Bomb(Term):
    """A term that must not be touched."""

    needs_labels = True

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        raise AssertionError("prepared")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        raise AssertionError("computed")


def test_a_term_of_weight_zero_is_never_computed_nor_prepared_nor_asked_for_anything() -> None:
    objective = Objective({"bomb": (0.0, Bomb()), "kd": (0.5, KD(T=4))})
    objective.prepare(outputs(ZS), [outputs(ZT)], setting(4), seed=0)
    total, values = objective(outputs(ZS), [outputs(ZT)], batch(Y))
    assert float(total) == pytest.approx(0.5 * 2.8564529605, rel=1e-8)
    assert list(values) == ["kd"]
    assert not objective.needs_labels
    assert objective.formula() == "0.5·4²·KL(p_t ‖ p_s; T=4)"


def test_with_alpha_zero_the_objective_is_the_baselines_bit_for_bit_and_wants_no_teacher() -> None:
    zs = ZS.float()
    ours, plain = zs.clone().requires_grad_(), zs.clone().requires_grad_()
    objective = build({"ce": {"use": "ce.CE", "weight": 1.0}, "kd": node("kd", alpha=0.0)})
    total, _ = objective(outputs(ours), [], batch(Y))
    baseline, _ = Objective({"ce": (1.0, CE())})(outputs(plain), None, batch(Y))
    total.backward()
    baseline.backward()
    assert not objective.needs_teacher
    assert torch.equal(total, baseline)
    assert ours.grad is not None and plain.grad is not None
    assert torch.equal(ours.grad, plain.grad)


def test_with_alpha_one_no_label_is_read() -> None:
    objective = build({"ce": {"use": "ce.CE", "weight": 0.0}, "kd": node("kd", alpha=1.0)})
    poisoned = torch.tensor([10**9, -(10**9), 5, -2])
    total, _ = objective(outputs(ZS), [outputs(ZT)], batch(poisoned))
    assert float(total) == pytest.approx(2.8564529605, rel=1e-8)
    assert not objective.needs_labels


def test_reported_values_carry_no_graph_and_the_total_does() -> None:
    objective = Objective({"ce": (0.1, CE()), "kd": (0.9, KD(T=4))})
    total, values = objective(outputs(ZS.clone().requires_grad_()), [outputs(ZT)], batch(Y))
    assert total.requires_grad
    assert not any(value.requires_grad for value in values.values())
    assert float(total.detach()) == pytest.approx(2.8842847261, rel=1e-8)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_negative_or_non_finite_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"loss.kd.weight must be .* at least 0, got {weight}"):
        build({"kd": {"use": "kd.KD", "weight": weight, "T": 4.0}})


def test_an_objective_without_a_single_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to learn from: ce=0, kd=0"):
        Objective({"ce": (0.0, CE()), "kd": (0.0, KD(T=4))})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"use": "kd.KDD"}, r"loss\.kd: use=kd\.KDD: .* has kd\.KD\. Did you mean kd\.KD\?"),
        ({"use": "kdd.KD"}, r"loss\.kd: use=kdd\.KD: .* reverse_kd.*Did you mean kd or"),
        ({"use": "base.Term"}, r"use=base\.Term: kdrun\.losses has abkd, at, .*ce, "),
        ({"use": "soft_ce.soft_cross_entropy"}, r"kdrun\.losses has soft_ce\.SoftCE"),
        ({"use": "os.system"}, r"use=os\.system: kdrun\.losses has"),
        ({"tau": 4}, r"loss\.kd: .*'tau'; kd\.KD takes \(T: float"),
        ({"T": -4}, r"loss\.kd: T must be a finite number above 0, got -4"),
        ({"weight": None}, r"loss\.kd: weight missing"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused_with_what_does(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build({"kd": node("kd") | wrong})


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(ValueError, match=r"loss\.kd: missing a required argument: 'T'"):
        build({"kd": {"use": "kd.KD", "weight": 1.0}})


class Sorting(Term):
    """A term that changes its argument, which belongs to the spec."""

    def __init__(self, ks: list[int]) -> None:
        super().__init__()
        ks.sort()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return student.logits.square().mean()


def test_a_term_that_changes_its_arguments_does_not_change_the_objectives_description() -> None:
    terms = {"sorting": {"use": f"{__name__}:Sorting", "weight": 1.0, "ks": [3, 1]}}
    build(terms)
    assert terms["sorting"]["ks"] == [3, 1]


class Hint(Term):
    """Feature term: a projection whose shape the outputs decide, and a warm-up over epochs."""

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        narrow, wide = student.features["stage2"].shape[1], teacher.features["stage2"].shape[1]
        self.regressor = nn.Conv2d(narrow, wide, kernel_size=1)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        difference: Tensor = self.regressor(student.features["stage2"]) - teacher.features["stage2"].detach()
        return difference.square().mean() * min(batch.epoch / 20, 1)

    def formula(self) -> str:
        return "MSE(f_t, r(f_s))"


class Bank(Term):
    """Contrastive-like term: one remembered embedding per training sample, and a relation over the batch."""

    rows: Tensor
    banks = ("rows",)

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        self.register_buffer("rows", torch.zeros(setting.num_samples, student.embedding.shape[1]))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        with torch.no_grad():
            self.rows[batch.indices] = student.embedding
        s, t = F.normalize(student.embedding), F.normalize(teacher.logits.detach())
        return (s @ s.T - t @ t.T).square().mean()

    def formula(self) -> str:
        return "relation"


def three_terms() -> Objective:
    return Objective({"kd": (0.9, KD(T=4)), "hint": (100.0, Hint()), "bank": (0.8, Bank())})


def prepared(objective: Objective, seed: int) -> dict[str, Tensor]:
    student, teacher = outputs(ZS.float(), width=3), outputs(ZT.float(), width=5)
    objective.prepare(student, [teacher], setting(10), seed=seed)
    return {key: tensor.clone() for key, tensor in objective.state_dict().items()}


def test_projections_and_banks_are_parameters_and_state_of_the_objective() -> None:
    objective = three_terms()
    state = prepared(objective, seed=0)
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == {
        "terms.hint.regressor.weight": (10, 6, 1, 1),
        "terms.hint.regressor.bias": (10,),
        "terms.bank.rows": (10, 6),
    }
    assert [name for name, _ in objective.named_parameters()] == list(state)[:2]
    student, teacher = outputs(ZS.float(), width=3), outputs(ZT.float(), width=5)
    total, values = objective(student, [teacher], batch(Y, epoch=10))
    total.backward()
    weight = objective.get_parameter("terms.hint.regressor.weight")
    assert weight.grad is not None and weight.grad.abs().sum() > 0
    assert torch.equal(objective.get_buffer("terms.bank.rows")[:4], student.embedding)
    late = objective(student, [teacher], batch(Y, epoch=30))[1]
    assert float(late["hint"]) == pytest.approx(2 * float(values["hint"]), rel=1e-6)
    assert objective.formula() == "0.9·4²·KL(p_t ‖ p_s; T=4) + 100·MSE(f_t, r(f_s)) + 0.8·relation"


def test_initial_projections_depend_on_the_seed_and_the_terms_name_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    together = prepared(three_terms(), seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    alone = prepared(Objective({"hint": (1.0, Hint())}), seed=0)
    key = "terms.hint.regressor.weight"
    assert torch.equal(together[key], alone[key])
    assert not torch.equal(together[key], prepared(three_terms(), seed=1)[key])
    assert not torch.equal(
        alone[key], prepared(Objective({"hint2": (1.0, Hint())}), seed=0)["terms.hint2.regressor.weight"]
    )


def test_find_gives_the_class_itself() -> None:
    assert find("kd.KD") is KD
