import gzip
import struct

import numpy as np
import pytest
import torch

from kdrun import data
from kdrun.data import download, mnist
from tests.data.given import SPLIT, real_data


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def written(root, folder="MNIST", compressed=False, train=20, labels=None):
    """A tiny set in torchvision's layout below `root`."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", 10)):
        arrays = {
            "images-idx3": random.integers(0, 256, (count, 28, 28)),
            "labels-idx1": np.arange(count) % 10,
        }
        if labels is not None:
            arrays["labels-idx1"] = labels
        for kind, array in arrays.items():
            path = raw / f"{part}-{kind}-ubyte"
            content = idx(array)
            if compressed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return root


def load(root, use="mnist.mnist"):
    return data.load(use, name="mnist", root=str(root) if root else None, **SPLIT)


def test_plain_and_compressed_files_give_the_same_set(tmp_path):
    plain = load(written(tmp_path / "plain"))
    compressed = load(written(tmp_path / "compressed", compressed=True))
    assert plain.digest == compressed.digest
    assert plain.train.images.shape == (20, 1, 28, 28) and plain.test.labels.tolist() == list(range(10))


def test_the_root_is_what_was_typed_then_the_variable_then_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KDRUN_DATA", str(written(tmp_path / "variable", train=30)))
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path / ".cache" / "kdrun", train=40)
    assert len(load(None).train) == 30
    assert len(load(written(tmp_path / "typed")).train) == 20
    assert len(load("~/typed").train) == 20
    monkeypatch.delenv("KDRUN_DATA")
    assert len(load(None).train) == 40
    with pytest.raises(ValueError, match=r"dataset.root=.*/typd: there is no such folder"):
        load(tmp_path / "typd")
    assert not (tmp_path / "typd").exists()


@pytest.mark.parametrize("cut", [0, 3, 10, 500])
def test_a_truncated_file_is_named(tmp_path, cut):
    path = written(tmp_path) / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte: not an IDX file.*delete it to download it again"):
        load(tmp_path)


def test_a_truncated_compressed_file_is_named(tmp_path):
    path = written(tmp_path, compressed=True) / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.gz: not an IDX file, or a damaged one"):
        load(tmp_path)


def test_labels_that_do_not_belong_to_the_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"images \(20, 28, 28\) and labels \(7,\) do not match"):
        load(written(tmp_path, labels=np.arange(7)))


def test_without_a_network_the_error_says_which_files_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MNIST_URLS", ("http://127.0.0.1:9/",))
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    path = written(tmp_path, compressed=True) / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    path.unlink()
    with pytest.raises(ValueError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert "mnist: t10k-labels-idx1-ubyte.gz is missing" in message
    assert f"into {tmp_path}/MNIST/raw by hand" in message
    assert "ec29112dd5afa0611ce80d1b7f02629c" in message and "KDRUN_DATA" in message
    assert "train-images" not in message


@pytest.mark.parametrize("kind", ["MNIST", "FashionMNIST"])
def test_the_real_sets_are_read_as_by_torchvision(kind):
    from torchvision import datasets

    root = real_data(f"{kind}/raw")
    ours = load(root, {"MNIST": "mnist.mnist", "FashionMNIST": "mnist.fashion_mnist"}[kind])
    for part, train in ((ours.train, True), (ours.test, False)):
        theirs = getattr(datasets, kind)(root, train=train)
        assert torch.equal(part.images[:, 0], theirs.data) and torch.equal(part.labels, theirs.targets)
    if kind == "FashionMNIST":
        assert list(ours.classes) == theirs.classes
    pixels = ours.train.images.double() / 255
    assert abs(pixels.mean() - ours.mean[0]) < 1e-4 and abs(pixels.std() - ours.std[0]) < 1e-4
