import pytest
import torch
import torchvision.transforms.functional as reference

from kdrun.data.batches import in_order, slices
from tests.data.given import MEAN, STD, batches_of, image_set, shifted


def test_an_epoch_shows_every_image_once_with_its_label():
    images = image_set(200)
    seen = list(batches_of(images).epoch(0))
    indices = torch.cat([batch.indices for batch in seen])
    assert sorted(indices.tolist()) == list(range(200))
    assert torch.equal(torch.cat([batch.labels for batch in seen]), images.labels[indices])
    assert [len(batch.images) for batch in seen] == [64, 64, 64, 8]
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in seen)


def test_the_order_follows_seed_and_epoch_and_nothing_else():
    images = image_set(200)

    def order(epoch=0, **changed):
        return torch.cat([batch.indices for batch in batches_of(images, **changed).epoch(epoch)]).tolist()

    first = order()
    torch.manual_seed(99)
    assert order(batch_size=7, augmentation=shifted()) == first
    assert order(epoch=1) != first and order(seed=1) != first


def test_entering_an_epoch_at_any_batch_gives_the_tail_of_the_whole_epoch():
    batches = batches_of(image_set(200), batch_size=32)
    whole = list(batches.epoch(4))
    for start in range(len(batches) + 1):
        tail = list(batches.epoch(4, start))
        assert len(tail) == len(whole) - start
        for a, b in zip(whole[start:], tail, strict=True):
            assert torch.equal(a.images, b.images) and torch.equal(a.indices, b.indices) and a.epoch == b.epoch == 4


def test_an_image_looks_the_same_in_an_epoch_whatever_the_batch_size():
    def looks(batch_size):
        seen = list(batches_of(image_set(50), batch_size=batch_size).epoch(2))
        return torch.cat([b.images for b in seen])[torch.cat([b.indices for b in seen]).argsort()]

    assert torch.equal(looks(50), looks(8))


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    list(batches_of(image_set(50)).epoch(0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("length", "batch_size", "sizes"),
    [
        (129, 64, [64, 65]),
        (130, 64, [64, 64, 2]),
        (65, 64, [65]),
        (3, 64, [3]),
        (128, 64, [64, 64]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_last_batch_of_one_joins_the_one_before(length, batch_size, sizes):
    batches = batches_of(image_set(length), batch_size=batch_size)
    assert [len(batch.labels) for batch in batches.epoch(0)] == sizes
    assert len(batches) == len(sizes)


def test_evaluation_keeps_order_and_full_batches():
    images = image_set(65)
    seen = list(in_order(images, batch_size=64, mean=MEAN, std=STD, device="cpu"))
    assert [len(batch.images) for batch in seen] == [64, 1]
    assert torch.equal(torch.cat([batch.indices for batch in seen]), torch.arange(65))
    wanted = reference.normalize(images.images.float().div(255), MEAN, STD)
    assert torch.equal(torch.cat([batch.images for batch in seen]), wanted)


@pytest.mark.parametrize("count", [0, 1])
def test_a_training_on_fewer_than_two_images_is_refused(count):
    with pytest.raises(ValueError, match=f"{count} image.*at least two; raise transfer.fraction"):
        batches_of(image_set(count))


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="batch_size=0: must be at least 1"):
        slices(10, 0)
