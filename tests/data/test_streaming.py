import gc
import multiprocessing
import os
import signal

import pytest
import torch

from kdrun.data.batches import in_order
from kdrun.data.decoders import Workers
from kdrun.data.sets import FileSet, ImageSet
from kdrun.data.transfer import TransferSet
from kdrun.files import RunFailed
from tests.data.given import MEAN, STD, batches_of, load_folder, picture, tree, zipped


@pytest.fixture
def both(tmp_path):
    """The same archive, in memory and streamed."""
    root = tree(tmp_path / "images", count=20)
    picture(1, mode="L").save(root / "train" / "cat" / "0.png")
    archive = zipped(root, tmp_path / "all.zip")
    return load_folder(archive, val_fraction=0.2), load_folder(archive, val_fraction=0.2, max_resident_gb=0.0)


def test_the_choice_follows_the_size(both):
    resident, streamed = both
    assert isinstance(resident.train, ImageSet) and isinstance(streamed.train, FileSet)
    assert (resident.digest, resident.mean, resident.std) == (streamed.digest, streamed.mean, streamed.std)
    assert torch.equal(resident.val.labels, streamed.val.labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_bit_for_bit_those_from_memory(both, workers):
    resident, streamed = both
    for start in (0, 2):
        a = batches_of(resident.train, batch_size=10).epoch(1, start)
        b = batches_of(streamed.train, batch_size=10, workers=Workers(workers)).epoch(1, start)
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x.images, y.images) and torch.equal(x.labels, y.labels)
            assert torch.equal(x.indices, y.indices) and x.images.stride() == y.images.stride()
    a, b = (in_order(s.test, batch_size=16, mean=MEAN, std=STD, device="cpu", workers=Workers(workers)) for s in both)
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x.images, y.images) and torch.equal(x.labels, y.labels)


def test_streaming_leaves_the_global_generator_alone(both):
    state = torch.get_rng_state()
    list(batches_of(both[1].train, batch_size=10, workers=Workers(1)).epoch(0))
    assert torch.equal(state, torch.get_rng_state())


def test_a_transfer_set_is_the_same_from_memory_and_streamed(both, tmp_path):
    extra = tmp_path / "extra"
    extra.mkdir()
    picture(5, (30, 20)).save(extra / "a.png")
    transfer = TransferSet(fraction=0.5, omit_classes=["dog"], extra=str(extra))
    resident, streamed = (transfer.apply(dataset) for dataset in both)
    assert resident.labels.tolist() == streamed.labels.tolist() == [0] * 8 + [-1]
    assert transfer.identity(both[0]) == transfer.identity(both[1])
    a, b = (next(in_order(s, batch_size=20, mean=MEAN, std=STD, device="cpu")) for s in (resident, streamed))
    assert torch.equal(a.images, b.images)


def pids():
    return {worker.pid for worker in multiprocessing.active_children()}


def test_workers_stay_from_epoch_to_epoch_serve_all_parts_and_end_with_the_set(tmp_path):
    streamed = load_folder(tree(tmp_path, count=6), max_resident_gb=0.0)
    batches = batches_of(streamed.train, batch_size=4, workers=Workers(2))
    list(batches.epoch(0))
    first = pids()
    assert len(first) == 2
    list(batches.epoch(1))
    list(in_order(streamed.test, batch_size=4, mean=MEAN, std=STD, device="cpu", workers=Workers(2)))
    assert pids() == first
    list(in_order(streamed.test, batch_size=4, mean=MEAN, std=STD, device="cpu", workers=Workers(1)))
    assert len(pids()) == 1
    del streamed, batches
    gc.collect()
    assert not pids()


def test_two_streams_at_once_and_one_that_was_broken_off_keep_their_own_order(both):
    resident, streamed = both

    def ordered(dataset):
        return in_order(dataset.test, batch_size=3, mean=MEAN, std=STD, device="cpu", workers=Workers(2))

    broken_off = batches_of(streamed.train, batch_size=2, workers=Workers(2)).epoch(0)
    next(broken_off)
    del broken_off
    for x, y, z in zip(ordered(streamed), ordered(streamed), ordered(resident), strict=True):
        assert torch.equal(x.images, z.images) and torch.equal(y.images, z.images)


def test_a_worker_that_dies_is_a_clear_error_and_leaves_no_orphan(both):
    batches = batches_of(both[1].train, batch_size=2, workers=Workers(2)).epoch(0)
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(RunFailed, match=r"a process that decodes images died .*workers=1"):
        list(batches)
    assert not multiprocessing.active_children()
    assert len(list(batches_of(both[1].train, batch_size=2, workers=Workers(1)).epoch(0))) == 16  # with fresh workers


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_goes_bad_after_the_start_is_named(tmp_path, workers):
    root = tree(tmp_path)
    streamed = load_folder(root, max_resident_gb=0.0)
    (root / "train" / "dog" / "1.png").write_bytes(b"")
    with pytest.raises(RunFailed, match=r"no longer is: .*train/dog/1.png: zero bytes"):
        list(batches_of(streamed.train, workers=Workers(workers)).epoch(0))
    assert not multiprocessing.active_children()


def test_a_streamed_folder_that_changed_is_read_anew(tmp_path, own_cache):
    root = tree(tmp_path)
    first = load_folder(root, max_resident_gb=0.0)
    assert load_folder(root, max_resident_gb=0.0).digest == first.digest and len(list(own_cache.iterdir())) == 1
    picture(50).save(root / "train" / "cat" / "0.png")
    assert load_folder(root, max_resident_gb=0.0).digest != first.digest
