"""Which layers are compared: by name, or paired by depth."""

import pytest
import torch
import torch.nn.functional as F

from kdrun.losses import layers
from kdrun.models.base import Outputs

from .given import ZS, outputs


def network(*names: str, preactivations: bool = True) -> Outputs:
    """What a network of these layers gives; each is 4×4, the first with one channel, the next with two, …"""
    maps = {name: torch.zeros(2, channels, 4, 4) for channels, name in enumerate(names, start=1)}
    return Outputs(torch.zeros(2, 5), maps, dict(maps) if preactivations else {}, torch.zeros(2, 7))


def stages(count: int) -> list[str]:
    return [f"stage{number}" for number in range(1, count + 1)]


def test_stages_are_paired_by_depth() -> None:
    three = network(*stages(3))
    assert layers.pairs(three, three) == [("stage1", "stage1"), ("stage2", "stage2"), ("stage3", "stage3")]


def test_the_deeper_network_gives_its_deepest_stages() -> None:
    assert layers.pairs(network(*stages(2)), network(*stages(4))) == [("stage1", "stage3"), ("stage2", "stage4")]
    assert layers.pairs(network(*stages(4)), network(*stages(2))) == [("stage3", "stage1"), ("stage4", "stage2")]


def test_at_most_four_stages_are_paired() -> None:
    five = network(*stages(5))
    assert layers.pairs(five, five) == [(name, name) for name in stages(5)[1:]]


def test_a_stem_is_left_out_unless_it_is_named_or_all_there_is() -> None:
    given = network("stem", *stages(2))
    assert layers.pairs(given, given) == [("stage1", "stage1"), ("stage2", "stage2")]
    assert layers.pairs(given, given, ["stem"], ["stage1"]) == [("stem", "stage1")]
    assert layers.pairs(network("stem"), given) == [("stem", "stage2")]


def test_named_layers_are_taken_in_the_order_they_are_named() -> None:
    given = network("stem", *stages(5))
    pairs = layers.pairs(given, given, ["stage5", "stem"], ["stage1", "stage1"])
    assert pairs == [("stage5", "stage1"), ("stem", "stage1")]


def test_more_than_four_may_be_named() -> None:
    five = network(*stages(5))
    assert layers.pairs(five, five, stages(5), stages(5)) == [(name, name) for name in stages(5)]
    assert layers.pairs(five, five, stages(5)) == [(name, name) for name in stages(5)]


def test_where_one_side_is_named_the_deepest_of_the_other_stand_in() -> None:
    student, teacher = network(*stages(3)), network("stem", *stages(4))
    assert layers.pairs(student, teacher, ["stage1"]) == [("stage1", "stage4")]
    assert layers.pairs(student, teacher, None, ["stem", "stage1"]) == [("stage2", "stem"), ("stage3", "stage1")]


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_an_unknown_name_is_answered_with_the_side_and_the_layers_that_exist_with_their_shapes(side: str) -> None:
    given = network("stem", *stages(2))
    named = {f"{side}_layers": ["stage9"]}
    with pytest.raises(ValueError, match=rf"^the {side}'s network has no layer stage9\.") as caught:
        layers.pairs(given, given, **named)
    assert str(caught.value).endswith("It has: stem 1×4×4, stage1 2×4×4, stage2 3×4×4")


def test_the_embedding_and_the_logits_are_no_maps() -> None:
    given = network(*stages(2))
    for name in ("embedding", "logits"):
        with pytest.raises(ValueError, match=f"no layer {name}"):
            layers.pairs(given, given, [name], ["stage1"])


@pytest.mark.parametrize(
    ("student_layers", "teacher_layers"),
    [(["stage1"], ["stage1", "stage2"]), (["stage1", "stage2", "stage2"], None), ([], []), ([], None)],
)
def test_lists_that_do_not_pair_off_are_refused_as_they_were_typed(
    student_layers: list[str], teacher_layers: list[str] | None
) -> None:
    given = network(*stages(2))
    with pytest.raises(ValueError, match="differ in length: name the same number of layers in both") as caught:
        layers.pairs(given, given, student_layers, teacher_layers)
    assert f"student_layers=[{','.join(student_layers)}] and teacher_layers=[" in str(caught.value)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_network_without_maps_is_refused_with_what_would_name_some(side: str) -> None:
    given = {"student": network("stage1"), "teacher": network("stage1")} | {side: network()}
    with pytest.raises(ValueError, match=f"^the {side}'s network names no feature maps to compare") as caught:
        layers.pairs(**given)
    assert f"{side}.features=[MODULE,…]" in str(caught.value)
    assert "preactivation" not in str(caught.value)


def test_a_network_without_preactivations_is_refused_with_the_key_that_does_without() -> None:
    student, teacher = network("stage1"), network("stage1", preactivations=False)
    assert layers.pairs(student, teacher) == [("stage1", "stage1")]
    with pytest.raises(ValueError, match=r"^the teacher's network names no pre-activations to compare") as caught:
        layers.pairs(student, teacher, preactivation=True)
    assert str(caught.value).endswith("preactivation=false compares maps after the ReLU")


def test_preactivations_are_the_maps_before_the_relu() -> None:
    given = outputs(ZS)
    assert layers.maps(given) is given.features
    assert layers.maps(given, preactivation=True) is given.preactivations
    assert layers.maps(given, preactivation=True)["stage1"].min() < 0


def test_a_vector_is_the_embedding_the_logits_or_a_flattened_map() -> None:
    given = outputs(ZS)
    assert layers.vector("student", given) is given.embedding
    assert layers.vector("student", given, "embedding") is given.embedding
    assert layers.vector("student", given, "logits") is given.logits
    assert layers.vector("student", given, "stage2").shape == (4, 6 * 4 * 4)
    with pytest.raises(ValueError, match=r"^the teacher's network has no layer stage3\.") as caught:
        layers.vector("teacher", given, "stage3")
    assert str(caught.value).endswith("It has: stage1 3×8×8, stage2 6×4×4, embedding, logits")


def test_the_deepest_map_is_the_last_and_none_where_there_is_none() -> None:
    assert layers.deepest(network("stem", *stages(3))) == "stage3"
    assert layers.deepest(network()) is None


def test_a_network_without_any_map_says_so_when_a_vector_is_named() -> None:
    with pytest.raises(ValueError, match=r"It has: embedding, logits$"):
        layers.vector("student", network(), "stage1")


@pytest.mark.parametrize("size", [(8, 8), (4, 2), (1, 1), (3, 5), (7, 8), (16, 11)])
@pytest.mark.parametrize("own", [(8, 8), (7, 10), (1, 1)])
def test_pooling_is_torchs_adaptive_average_pooling(own: tuple[int, int], size: tuple[int, int]) -> None:
    f = torch.randn(2, 3, *own, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    g = f.detach().clone().requires_grad_()
    ours, torchs = layers.pooled(f, size), F.adaptive_avg_pool2d(g, size)
    torch.testing.assert_close(ours, torchs)
    ours.square().sum().backward()
    torchs.square().sum().backward()
    torch.testing.assert_close(f.grad, g.grad)


def test_maps_are_made_alike_in_the_smaller_size() -> None:
    f_s, f_t = layers.alike(torch.zeros(2, 3, 8, 2, dtype=torch.float16), torch.zeros(2, 5, 4, 4, dtype=torch.float64))
    assert (f_s.shape, f_t.shape) == ((2, 3, 4, 2), (2, 5, 4, 2))
    assert (f_s.dtype, f_t.dtype) == (torch.float32, torch.float64)


def test_what_is_no_map_is_refused() -> None:
    given = network("stage1")
    given.features["stage2"] = torch.zeros(2, 17, 64)
    with pytest.raises(ValueError, match=r"^the student's stage2 is 17×64 for each image, not a map"):
        layers.pairs(given, network(*stages(2)))
    assert layers.pairs(given, network(*stages(2)), ["stage1"], ["stage1"])
