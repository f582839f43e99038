import pytest
import torch
from scipy import stats

from kdrun.randomness import below, bits, key, permutation


def test_the_bits_are_those_of_the_published_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    made = [b % 2**64 for b in bits(1234567, torch.arange(1, 5)).tolist()]
    assert made == published


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("limit", [2, 9])
def test_draws_below_a_limit_are_uniform(limit, part):
    drawn = below(limit, bits(key(3, 0, 7), torch.arange(50_000)), part)
    assert (drawn.min(), drawn.max()) == (0, limit - 1)
    assert stats.chisquare(drawn.bincount(minlength=limit)).pvalue > 0.001


def test_the_parts_of_one_draw_are_independent_of_each_other_and_of_the_next_epoch():
    index = torch.arange(50_000)
    first, second = bits(key(2, 0, 0), index), bits(key(2, 0, 1), index)
    for a, b in [(below(9, first, 0), below(9, first, 1)), (below(9, first, 0), below(9, second, 0))]:
        table = torch.bincount(9 * a + b, minlength=81).view(9, 9)
        assert stats.chi2_contingency(table).pvalue > 0.001


def test_every_place_of_a_permutation_is_equally_likely():
    places = torch.stack([permutation(key(1, 0, epoch), 5) for epoch in range(5000)])
    for place in range(5):
        assert stats.chisquare(places[:, place].bincount(minlength=5)).pvalue > 0.001
    codes = (places * torch.tensor([625, 125, 25, 5, 1])).sum(1).unique(return_counts=True)[1]
    assert len(codes) == 120 and stats.chisquare(codes).pvalue > 0.001


def test_keys_differ_in_the_order_of_their_words():
    keys = [key(*words) for words in [(1, 2, 3), (1, 3, 2), (2, 1, 3), (1, 2), (1, 2, 0), (0, 1, 2)]]
    assert len(set(keys)) == 6
