"""Semantic calibration: every stage with every stage, weighted by attention."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdrun.losses import build
from kdrun.losses.sem_ckd import SemCKD, association, calibrated, projection, similarity
from kdrun.models.base import Outputs

from .given import batch, node, setting

some = settings(max_examples=25, deadline=None, derandomize=True)
seeds, small = st.integers(0, 2**31), st.integers(1, 5)


def network(*maps: Tensor) -> Outputs:
    """A network that gives these maps, stage by stage."""
    named = {f"stage{number}": f for number, f in enumerate(maps, start=1)}
    return Outputs(torch.zeros(len(maps[0]), 5), named, {}, maps[-1].mean((2, 3)))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def student(n: int = 8) -> Outputs:
    return network(normal(n, 2, 8, 8, seed=1), normal(n, 3, 4, 4, seed=2))


def teacher(n: int = 8) -> Outputs:
    return network(normal(n, 4, 8, 8, seed=3), normal(n, 5, 4, 4, seed=4), normal(n, 6, 2, 2, seed=5))


def prepared(s: Outputs, t: Outputs, term: SemCKD | None = None, batch_size: int = 8) -> SemCKD:
    torch.manual_seed(0)
    term = term or SemCKD()
    term.prepare(s, t, setting(16, batch_size))
    return term.double()


def value(term: SemCKD, s: Outputs, t: Outputs) -> Tensor:
    return term(s, t, batch(torch.zeros(len(s.logits))))


def test_two_by_two_layers_by_hand() -> None:
    """Student layer 1 attends to both alike; layer 2's query is key 1: weights e/(e+1) and 1/(e+1)."""
    keys = torch.tensor([[[2.0, 0], [0, 3]]])
    queries = torch.tensor([[[1.0, 1], [5, 0]]])
    first = math.e / (math.e + 1)
    expected = [[0.5, 0.5], [first, 1 - first]]
    torch.testing.assert_close(association(queries, keys), torch.tensor([expected]))
    distances = torch.tensor([[[1.0, 3], [10, 20]]])
    loss = calibrated(distances, association(queries, keys))
    assert loss.tolist() == pytest.approx([(2 + 10 * first + 20 * (1 - first)) / 2], rel=1e-6)


def test_similarities_are_inner_products_of_whole_maps() -> None:
    f = torch.tensor([[1.0, 2], [3, 4], [0, -1]]).view(3, 2, 1, 1)
    assert similarity(f).tolist() == [[5, 11, -2], [11, 25, -4], [-2, -4, 1]]


def test_the_term_is_the_papers_formula_with_its_own_networks() -> None:
    s, t = student(), teacher()
    term = prepared(s, t)
    maps_s, maps_t = list(s.features.values()), list(t.features.values())
    expected = 0.0
    for i, f_s in enumerate(maps_s):
        query = F.normalize(term.queries[i](f_s.flatten(1) @ f_s.flatten(1).T))
        keys = [F.normalize(net(f.flatten(1) @ f.flatten(1).T)) for net, f in zip(term.keys, maps_t, strict=True)]
        alpha = torch.stack([(query * key).sum(1) for key in keys], 1).softmax(1)
        for j, f_t in enumerate(maps_t):
            side = min(f_s.shape[2], f_t.shape[2])
            predicted = term.projections[3 * i + j](F.adaptive_avg_pool2d(f_s, side))
            distance = (predicted - F.adaptive_avg_pool2d(f_t, side)).square().mean((1, 2, 3))
            expected = expected + (alpha[:, j] * distance).mean() / 2
    assert value(term, s, t).item() == pytest.approx(expected.item(), rel=1e-12)


@some
@given(seeds, small, small, small, small)
def test_a_samples_association_sums_to_one_for_every_student_layer_and_ignores_lengths(
    seed: int, n: int, s: int, t: int, d: int
) -> None:
    queries, keys = normal(n, s, d, seed=seed), normal(n, t, d, seed=seed + 1)
    alpha = association(queries, keys)
    torch.testing.assert_close(alpha.sum(2), torch.ones(n, s, dtype=torch.float64))
    torch.testing.assert_close(association(7 * queries, keys / 3), alpha)


@some
@given(seeds, small, small, small)
def test_projections_that_hit_the_teacher_cost_nothing_and_none_costs_less(seed: int, n: int, s: int, t: int) -> None:
    weights = association(normal(n, s, 4, seed=seed), normal(n, t, 4, seed=seed + 1))
    assert not calibrated(torch.zeros(n, s, t, dtype=torch.float64), weights).any()
    distances = normal(n, s, t, seed=seed + 2).square()
    loss = calibrated(distances, weights)
    assert (loss >= distances.amin(2).mean(1) - 1e-12).all()
    assert (loss <= distances.amax(2).mean(1) + 1e-12).all()


def test_with_one_teacher_layer_there_is_nothing_to_attend_to() -> None:
    s, t = student(), network(normal(8, 4, 4, 4, seed=3))
    term = prepared(s, t)
    pooled = F.adaptive_avg_pool2d(s.features["stage1"], 4)
    maps = [pooled, s.features["stage2"]]
    each = [F.mse_loss(net(f), t.features["stage1"]) for net, f in zip(term.projections, maps, strict=True)]
    assert value(term, s, t).item() == pytest.approx(sum(x.item() for x in each) / 2, rel=1e-12)


@pytest.mark.parametrize("n", [2, 5, 8, 9])
def test_batches_may_be_smaller_or_larger_than_the_usual_one(n: int) -> None:
    s, t = student(n), teacher(n)
    term = prepared(student(), teacher())
    loss = value(term, s, t)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in term.parameters())


def test_images_that_a_batch_lacks_are_as_if_they_had_no_response() -> None:
    term = prepared(student(), teacher())
    f = student(5).features["stage1"]
    filled = torch.cat([f, torch.zeros(3, *f.shape[1:])])
    queries = term._embedded(term.queries[:1], [f])
    torch.testing.assert_close(queries, term._embedded(term.queries[:1], [filled])[:5])


def test_in_a_larger_batch_each_sample_is_compared_with_the_first_images() -> None:
    term = prepared(student(), teacher())
    f = normal(9, 2, 8, 8, seed=1)
    queries = term._embedded(term.queries[:1], [f])
    assert queries.shape[0] == 9
    torch.testing.assert_close(queries[:8], term._embedded(term.queries[:1], [f[:8]]))


@pytest.mark.parametrize(("batch_size", "width"), [(64, 16), (8, 2), (3, 1), (1, 1)])
def test_a_query_has_a_quarter_as_many_numbers_as_a_batch_has_images(batch_size: int, width: int) -> None:
    term = prepared(student(), teacher(), batch_size=batch_size)
    for network_ in [*term.queries, *term.keys]:
        assert [tuple(p.shape) for p in network_.parameters() if p.ndim == 2] == [
            (2 * width, batch_size),
            (width, 2 * width),
        ]
    assert value(term, student(4), teacher(4)).isfinite()


def test_the_projection_is_1x1_3x3_and_1x1_and_twice_as_wide_inside() -> None:
    kinds = [type(part) for part in projection(3, 5, 2.0)]
    inner = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert kinds == [*inner, *inner, nn.Conv2d]
    shapes = [tuple(p.shape) for p in projection(3, 5, 2.0).parameters() if p.ndim == 4]
    assert shapes == [(10, 3, 1, 1), (10, 10, 3, 3), (5, 10, 1, 1)]
    assert projection(3, 5, 0.5)[0].out_channels == 2


def test_networks_for_every_layer_and_projections_for_every_pair_are_trained_and_saved() -> None:
    s, t = student(), teacher()
    term = prepared(s, t)
    assert (len(term.queries), len(term.keys), len(term.projections)) == (2, 3, 6)
    value(term, s, t).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in term.parameters())
    saved = set(term.state_dict())
    assert {"queries.1.0.weight", "keys.2.2.bias", "projections.5.3.weight", "projections.0.1.running_var"} <= saved
    assert term.banks == ()


def test_stages_need_not_pair_off_and_without_names_the_four_deepest_are_taken() -> None:
    many = network(*(normal(8, 2, 2, 2, seed=seed) for seed in range(6)))
    term = prepared(student(), many)
    assert term.stages == {"student": ["stage1", "stage2"], "teacher": ["stage3", "stage4", "stage5", "stage6"]}
    with_stem = student()._replace(features={"stem": normal(8, 2, 8, 8), **student().features})
    assert prepared(with_stem, many).stages["student"] == ["stage1", "stage2"]


def test_named_layers_are_matched_and_unknown_ones_answered_with_those_that_exist() -> None:
    s, t = student(), teacher()
    term = prepared(s, t, SemCKD(student_layers=["stage2"], teacher_layers=["stage3", "stage1"]))
    assert len(term.projections) == 2
    assert value(term, s, t).isfinite()
    for side in ("student", "teacher"):
        with pytest.raises(ValueError, match=rf"the {side}'s network has no layer stage9\..*It has: stage1"):
            prepared(s, t, SemCKD(**{f"{side}_layers": ["stage9"]}))
        with pytest.raises(ValueError, match=rf"^{side}_layers=\[\]: name at least one of stage1, stage2"):
            prepared(s, t, SemCKD(**{f"{side}_layers": []}))
    with pytest.raises(ValueError, match="teacher's network names no feature maps"):
        prepared(s, t._replace(features={}))


def test_gradients_are_those_of_finite_differences_through_the_attention_too() -> None:
    s, t = student(), teacher()
    term = prepared(s, t)

    def loss(first: Tensor, second: Tensor) -> Tensor:
        return value(term, s._replace(features={"stage1": first, "stage2": second}), t)

    inputs = tuple(f.clone().requires_grad_() for f in s.features.values())
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)
    queries = normal(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: association(q, normal(2, 2, 4, seed=1)), (queries,))


@pytest.mark.parametrize("key", ["widening", "reduction"])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_numbers_out_of_range_are_refused_by_their_name(key: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.sem_ckd: {key} must be a finite number above 0, got {bad}"):
        build({"sem_ckd": node("sem_ckd") | {key: bad}})


def test_the_formula() -> None:
    assert SemCKD().formula() == "[Σ_s Σ_t α_st·MSE(r_st(f_s), f_t) / S]"


def test_what_is_no_map_is_refused() -> None:
    tokens = student()._replace(features={"stage1": normal(8, 17, 4)})
    with pytest.raises(ValueError, match=r"^the student's stage1 is 17×4 for each image, not a map"):
        prepared(tokens, teacher(), SemCKD(student_layers=["stage1"]))
