"""How a batch is shared out, and how the shares come together again."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdrun.data.batches import Batch, Batches, counted, in_order, share
from kdrun.data.digits import digits
from kdrun.models.base import Outputs
from kdrun.training.distributed import ALONE, Ranks
from kdrun.training.gathered import GatheredOutputs
from tests.data.given import shifted


@pytest.fixture(scope="module")
def images():
    return digits(name="digits", val_fraction=0, split_seed=0).train.subset(torch.arange(70))


def batches(images, rank=0, ranks=1):
    """Batches of 33 images of 70, so that the last holds 4, augmented."""
    setting = {"batch_size": 33, "seed": 3, "augmentation": shifted(1, True), "mean": [0.3], "std": [0.4]}
    return Batches(images, **setting, device="cpu", rank=rank, ranks=ranks)


@given(st.integers(1, 300), st.integers(1, 16))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_shares_differ_by_one_image_at_most_and_make_up_the_batch(length, ranks):
    places = [share(slice(7, 7 + length), rank, ranks) for rank in range(ranks)]
    sizes = counted(length, ranks)
    assert sum(sizes) == length
    if length < 2 * ranks:
        assert places == [slice(7, 7 + length)] * ranks and sizes[0] == length
    else:
        assert [i for place in places for i in range(place.start, place.stop)] == list(range(7, 7 + length))
        assert sizes == [place.stop - place.start for place in places] and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_shares_of_all_processes_are_the_batches_of_one(images, ranks):
    every = [list(batches(images, rank, ranks).epoch(5, start=1)) for rank in range(ranks)]
    for number, whole in enumerate(batches(images).epoch(5, start=1)):
        parts = [batches_of_one[number] for batches_of_one in every]
        taken = [part.images[:size] for part, size in zip(parts, counted(len(whole.labels), ranks), strict=True)]
        assert torch.equal(torch.cat(taken), whole.images)
        for part in parts:
            assert torch.equal(part.whole.labels, whole.labels) and torch.equal(part.whole.indices, whole.indices)
            assert torch.equal(part.labels, images.labels[part.indices])
            assert len(part.whole.images) == 0  # no loss may take the share for the whole


def test_the_batch_of_one_process_is_whole(images):
    batch = next(batches(images).epoch(0))
    assert batch.whole is batch


def test_an_evaluation_is_dealt_out_in_whole_batches(images):
    setting = {"batch_size": 16, "mean": [0.3], "std": [0.4], "device": "cpu"}
    whole = list(in_order(images, **setting))
    dealt = [list(in_order(images, **setting, rank=rank, ranks=3)) for rank in range(3)]
    assert [len(own) for own in dealt] == [2, 2, 1]
    for number, batch in enumerate(whole):
        assert torch.equal(dealt[number % 3][number // 3].images, batch.images)


def test_one_process_alone_changes_nothing():
    outputs = Outputs(torch.ones(2, 3), {}, {}, torch.ones(2, 4))
    network = torch.nn.Linear(2, 3)
    assert ALONE.leads and ALONE.gather(outputs, None) is outputs
    assert ALONE.data_parallel(network) is network and ALONE.sync_batch_norm(network, torch.device("cuda")) is network
    assert ALONE.broadcast(5) == 5


class Two(Ranks):
    """Rank 1 of two, which gathers from a rank 0 whose rows are those of this one plus 100."""

    def __init__(self):
        super().__init__(1, 2)
        self.asked = 0

    def gather_rows(self, own, length):
        self.asked += 1
        size = counted(length, 2)[0]
        return torch.cat([own[:size].detach() + 100, own])


def test_outputs_are_gathered_once_and_only_where_they_are_read():
    ranks = Two()
    labels = torch.zeros(4, dtype=torch.int64)
    batch = Batch(torch.zeros(2, 1), labels[:2], labels[:2], 0, Batch(torch.zeros(0, 1), labels, labels, 0))
    own = Outputs(torch.ones(2, 3), {"stage1": torch.ones(2, 5), "stage2": torch.ones(2, 6)}, {}, torch.ones(2, 4))
    whole = ranks.gather(own, batch)
    assert isinstance(whole, GatheredOutputs) and ranks.asked == 0
    assert list(whole.features) == ["stage1", "stage2"] and next(reversed(whole.features)) == "stage2"
    assert "stage1" in whole.features and len(whole.features) == 2 and ranks.asked == 0
    assert whole.logits.shape == whole.logits.shape == (4, 3) and ranks.asked == 1
    assert whole.features["stage2"].shape == dict(whole.features)["stage2"].shape == (4, 6) and ranks.asked == 3
