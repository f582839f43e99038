import pytest
import torch
from sklearn.model_selection import StratifiedShuffleSplit

from kdrun.data.splits import hold_out, stratified
from kdrun.randomness import key

LABELS = torch.repeat_interleave(torch.arange(5), torch.tensor([100, 7, 33, 250, 12]))[
    torch.randperm(402, generator=torch.Generator().manual_seed(0))
]


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.25, 0.5, 0.9])
def test_as_many_of_each_class_are_held_out_as_by_scikit_learn(fraction):
    train, val = hold_out(LABELS, fraction, 0)
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=round(fraction * 402), random_state=0)
    _, theirs = next(splitter.split(LABELS, LABELS))
    ours, wanted = LABELS[val].bincount(minlength=5), LABELS[theirs].bincount(minlength=5)
    assert len(val) == len(theirs) and (ours - wanted).abs().max() <= 1
    assert sorted(torch.cat([train, val]).tolist()) == list(range(402))
    assert torch.equal(val, val.sort().values) and torch.equal(train, train.sort().values)


def test_what_is_held_out_follows_the_split_seed_and_not_the_global_generator():
    first = hold_out(LABELS, 0.2, 0)[1]
    torch.manual_seed(5)
    assert torch.equal(hold_out(LABELS, 0.2, 0)[1], first)
    assert not torch.equal(hold_out(LABELS, 0.2, 1)[1], first)


def test_every_image_is_equally_likely_to_be_held_out():
    from scipy import stats

    labels = torch.arange(100) % 4
    counts = sum(torch.bincount(hold_out(labels, 0.2, seed)[1], minlength=100) for seed in range(400))
    assert counts.sum() == 400 * 20
    assert stats.chisquare(counts).pvalue > 0.001


def test_a_smaller_draw_is_part_of_a_larger_one():
    labels = torch.arange(400) % 4
    small, large = (set(stratified(labels, count, key(4, 0)).tolist()) for count in (40, 200))
    assert small < large


def test_fraction_zero_holds_nothing_out():
    train, val = hold_out(LABELS, 0.0, 0)
    assert len(train) == 402 and len(val) == 0


def test_every_class_keeps_an_image_to_train_on():
    train, _ = hold_out(torch.tensor([0, 1, 1, 1, 1, 1]), 0.9, 0)
    assert set(torch.tensor([0, 1, 1, 1, 1, 1])[train].tolist()) == {0, 1}


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        hold_out(LABELS, fraction, 0)


def test_a_fraction_that_holds_out_no_image_is_refused():
    with pytest.raises(ValueError, match=r"of 4 images holds out none; type dataset.val_fraction=0, or at least 0.25"):
        hold_out(torch.tensor([0, 0, 1, 1]), 0.1, 0)
