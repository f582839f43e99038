"""Knowledge review: fused levels, compared at several sizes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdrun.losses import build
from kdrun.losses.review_kd import Fusion, ReviewKD, hierarchical_context
from kdrun.models.base import Outputs

from .given import Y, batch, node, outputs, setting

FS = (0.1 * torch.arange(192, dtype=torch.float64)).sin().reshape(4, 3, 4, 4)
FT = (0.13 * torch.arange(192, dtype=torch.float64)).cos().reshape(4, 3, 4, 4)

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, small = st.integers(0, 2**31), st.integers(1, 5)


def network(*maps: Tensor, width: int = 6, preactivations: bool = True) -> Outputs:
    """A network whose stages give these maps before their ReLU, and an embedding of that width."""
    before = {f"stage{number}": f for number, f in enumerate(maps, start=1)}
    after = {name: f.relu() for name, f in before.items()}
    embedding = normal(len(maps[0]), width, seed=width).abs()
    return Outputs(torch.zeros(len(maps[0]), 5), after, before if preactivations else {}, embedding)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prepared(student: Outputs, teacher: Outputs, term: ReviewKD | None = None) -> ReviewKD:
    torch.manual_seed(0)
    term = term or ReviewKD(warmup_epochs=0)
    term.prepare(student, teacher, setting())
    return term.double()


def test_the_context_loss_has_the_value_of_its_published_implementation() -> None:
    assert hierarchical_context(FS, FT).mean().item() == pytest.approx(0.9583953890, rel=1e-9)


def test_a_map_of_four_places_by_hand() -> None:
    """Differences 1, 2, 3, 6: mean square 12.5, and 3² of their mean, which weighs half."""
    f_s, f_t = torch.tensor([1.0, 2, 3, 6]).view(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    assert hierarchical_context(f_s, f_t).tolist() == pytest.approx([(12.5 + 0.5 * 9) / 1.5], rel=1e-6)


@pytest.mark.parametrize("sides", [[1], [2, 1], [3, 2, 1], [4, 2, 1], [8, 4, 2, 1]])
def test_only_sides_below_the_maps_own_count(sides: list[int]) -> None:
    """One value of h² in a corner is p² there when it is pooled to p×p: mean square p² at every size."""
    side, weights = sides[0], [0.5**k for k in range(len(sides))]
    same = normal(2, 3, side, side)
    assert hierarchical_context(same + 3, same).tolist() == pytest.approx([9, 9], rel=1e-9)
    if side != 3:
        corner = torch.zeros(1, 1, side, side)
        corner[..., 0, 0] = side**2
        expected = sum(w * p**2 for w, p in zip(weights, sides, strict=True)) / sum(weights)
        assert hierarchical_context(corner, torch.zeros_like(corner)).item() == pytest.approx(expected, rel=1e-6)


@some
@given(seeds, small, small, st.sampled_from([1, 2, 3, 4, 7, 8]))
def test_a_student_that_equals_the_teacher_pays_nothing_and_no_one_pays_less(seed: int, n: int, c: int, h: int) -> None:
    f_t = normal(n, c, h, h, seed=seed)
    assert not hierarchical_context(f_t, f_t).any()
    assert (hierarchical_context(normal(n, c, h, h, seed=seed + 1), f_t) >= 0).all()


@some
@given(seeds, small, st.floats(0.1, 10))
def test_a_difference_twice_as_large_costs_four_times_as_much(seed: int, n: int, scale: float) -> None:
    f_s, f_t = normal(n, 2, 8, 8, seed=seed), normal(n, 2, 8, 8, seed=seed + 1)
    once, more = hierarchical_context(f_s, f_t), hierarchical_context(scale * f_s, scale * f_t)
    torch.testing.assert_close(more, scale**2 * once)


def test_the_deepest_level_is_only_transformed() -> None:
    fusion = Fusion(5, 4, 7, deepest=True)
    assert fusion.gates is None
    out, passed_on = fusion(torch.randn(3, 5, 1, 1), None, torch.Size((1, 1)))
    assert out.shape == (3, 7, 1, 1)
    assert passed_on.shape == (3, 4, 1, 1)


def test_gates_weigh_a_level_and_what_is_deeper_and_maps_take_the_nearest_size() -> None:
    fusion = Fusion(2, 2, 3, deepest=False).double().eval()
    nn.init.dirac_(fusion.narrow[0].weight)
    nn.init.zeros_(fusion.gates[0].weight)
    fusion.gates[0].bias.data = torch.tensor([0.0, 10.0], dtype=torch.float64)
    f_s, deeper = normal(3, 2, 4, 4), normal(3, 2, 2, 2, seed=1)
    _, fused = fusion(f_s, deeper, torch.Size((8, 8)))
    same_size = deeper.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = f_s / (1 + 1e-5) ** 0.5 / 2 + torch.sigmoid(torch.tensor(10.0, dtype=torch.float64)) * same_size
    torch.testing.assert_close(fused, expected.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_levels_are_summed_from_the_embedding_up_each_fused_with_the_deeper_ones() -> None:
    student = network(normal(4, 3, 8, 8), normal(4, 4, 4, 4, seed=1))
    teacher = network(normal(4, 5, 16, 16, seed=2), normal(4, 7, 8, 8, seed=3), width=9)
    term = prepared(student, teacher)
    embedding, second, first = term.fusions
    fused, passed_on = embedding(student.embedding[:, :, None, None], None, torch.Size((1, 1)))
    expected = F.mse_loss(fused, teacher.embedding[:, :, None, None])
    fused, passed_on = second(student.features["stage2"], passed_on, torch.Size((8, 8)))
    expected = expected + hierarchical_context(fused, teacher.preactivations["stage2"]).mean()
    fused, _ = first(student.features["stage1"], passed_on, torch.Size((16, 16)))
    expected = expected + hierarchical_context(fused, teacher.preactivations["stage1"]).mean()
    assert term(student, teacher, batch(Y)).item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize(("epoch", "share"), [(0, 0.05), (1, 0.1), (18, 0.95), (19, 1.0), (20, 1.0), (239, 1.0)])
def test_the_term_warms_up_over_20_epochs_counted_from_one(epoch: int, share: float) -> None:
    given = network(FS), network(FT)
    term = prepared(*given, ReviewKD())
    full = prepared(*given)
    assert term(*given, batch(Y, epoch)).item() == pytest.approx(
        share * full(*given, batch(Y, epoch)).item(), rel=1e-12
    )


@pytest.mark.parametrize(("width", "mid_channels", "expected"), [(64, 512, 64), (1280, 512, 512), (256, 128, 128)])
def test_fused_maps_are_as_wide_as_the_students_embedding_up_to_a_limit(
    width: int, mid_channels: int, expected: int
) -> None:
    term = ReviewKD(mid_channels=mid_channels)
    term.prepare(network(FS, width=width), network(FT), setting())
    assert [fusion.narrow[0].out_channels for fusion in term.fusions] == [expected] * 2


def test_there_is_a_fusion_for_each_stage_and_the_embedding_and_all_is_trained() -> None:
    student, teacher = outputs(normal(4, 5), width=3), outputs(normal(4, 5), width=5)
    term = prepared(student, teacher)
    shapes = [(f.narrow[0].in_channels, f.widen[0].out_channels, f.gates is None) for f in term.fusions]
    assert shapes == [(6, 10, True), (6, 10, False), (3, 5, False)]
    term(student, teacher, batch(Y)).backward()
    assert all(p.grad is not None for p in term.parameters())
    assert {"fusions.1.gates.0.weight", "fusions.1.narrow.1.running_mean"} <= set(term.state_dict())
    assert term.banks == ()


def reached(term: ReviewKD) -> list[str]:
    """Whose maps a term reads: names of those of the student and the teacher that change its value."""
    student, teacher = network(FS), network(FT)
    term = prepared(student, teacher, term).eval()
    value = term(student, teacher, batch(Y))
    changed = []
    for side in ("student", "teacher"):
        for kind in ("features", "preactivations"):
            given = {"student": student, "teacher": teacher}
            maps = {name: f + 1 for name, f in getattr(given[side], kind).items()}
            given[side] = given[side]._replace(**{kind: maps})
            if not torch.equal(term(**given, batch=batch(Y)), value):
                changed.append(f"{side}.{kind}")
    return changed


def test_either_side_may_be_taken_from_behind_the_relu() -> None:
    assert reached(ReviewKD()) == ["student.features", "teacher.preactivations"]
    both = ReviewKD(student_preactivation=True)
    assert reached(both) == ["student.preactivations", "teacher.preactivations"]
    assert reached(ReviewKD(preactivation=False)) == ["student.features", "teacher.features"]


def test_a_network_without_preactivations_is_compared_behind_the_relu() -> None:
    student, teacher = network(FS, preactivations=False), network(FT)
    with pytest.raises(ValueError, match="student's network names no pre-activations"):
        prepared(student, teacher, ReviewKD(student_preactivation=True))
    prepared(student, teacher)
    prepared(student, network(FT, preactivations=False), ReviewKD(preactivation=False))


def test_gradients_reach_maps_and_embedding_and_are_those_of_finite_differences() -> None:
    student, teacher = network(FS), network(FT)
    term = prepared(student, teacher)

    def loss(f_s: Tensor, embedding: Tensor) -> Tensor:
        return term(student._replace(preactivations={"stage1": f_s}, embedding=embedding), teacher, batch(Y))

    inputs = FS.clone().requires_grad_(), student.embedding.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize(("key", "bad"), [("warmup_epochs", -1), ("mid_channels", 0)])
def test_numbers_out_of_range_are_refused_by_their_name(key: str, bad: int) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.review_kd: {key} must be at least \d, got {bad}"):
        build({"review_kd": node("review_kd") | {key: bad}})


def test_the_weight_is_the_papers_usual_one() -> None:
    assert node("review_kd")["weight"] == 5.0


def test_the_formula() -> None:
    assert ReviewKD().formula() == "min(epoch/20, 1)·[Σ_l HCL(ABF_l(f_s), f_t)]"
    assert ReviewKD(warmup_epochs=0).formula() == "[Σ_l HCL(ABF_l(f_s), f_t)]"
