import hashlib
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch

from kdrun import data
from kdrun.data import cifar
from kdrun.data.download import File
from tests.data.given import SPLIT, picture, tree, zipped


def batch(key: str, count: int, classes: int, seed: int) -> dict:
    random = np.random.default_rng(seed)
    labels = (np.arange(count) % classes).tolist()
    return {"data": random.integers(0, 256, (count, 3072)).astype(np.uint8), key: labels}


def written(root, hundred=True):
    """A tiny set in the layout of CIFAR-100, or of CIFAR-10, below `root`."""
    folder = root / ("cifar-100-python" if hundred else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    if hundred:
        files = {part: batch("fine_labels", 200, 100, i) for i, part in enumerate(("train", "test"))}
        files["meta"] = {"fine_label_names": [f"thing {i:02d}" for i in range(100)]}
    else:
        files = {f"data_batch_{i}": batch("labels", 20, 10, i) for i in range(1, 6)}
        files |= {
            "test_batch": batch("labels", 20, 10, 9),
            "batches.meta": {"label_names": list("abcdefghij")},
        }
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return root


def load(root, use="cifar.cifar100"):
    root = [str(place) for place in root] if isinstance(root, list) else str(root)
    return data.load(use, name=use.partition(".")[2], root=root, **SPLIT)


def test_pixels_labels_and_names_are_those_of_the_files(tmp_path):
    loaded = load(written(tmp_path))
    wanted = batch("fine_labels", 200, 100, 0)
    assert torch.equal(loaded.train.images, torch.from_numpy(wanted["data"]).view(-1, 3, 32, 32))
    assert loaded.train.labels.tolist() == wanted["fine_labels"]
    assert loaded.num_classes == 100 and loaded.classes[7] == "thing 07"


def test_the_five_files_of_cifar10_are_taken_in_order(tmp_path):
    loaded = load(written(tmp_path, hundred=False), "cifar.cifar10")
    assert loaded.train.images.shape == (100, 3, 32, 32) and len(loaded.test) == 20
    second = torch.from_numpy(batch("labels", 20, 10, 2)["data"]).view(-1, 3, 32, 32)
    assert torch.equal(loaded.train.images[20:40], second)


def test_an_archive_beside_is_unpacked(tmp_path, monkeypatch):
    written(tmp_path / "elsewhere")
    archive = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "elsewhere" / "cifar-100-python", "cifar-100-python")
    digest = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar, "CIFAR100", cifar.CIFAR100._replace(archive=File(archive.name, digest)))
    assert load(tmp_path).digest == load(tmp_path / "elsewhere").digest


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path):
    folder = written(tmp_path) / "cifar-100-python"
    (folder / "train").write_bytes(pickle.dumps({"data": Touch(str(tmp_path / "touched"))}, protocol=2))
    with pytest.raises(ValueError, match=r"train: cannot be read as a CIFAR file \(asks for posix.mkdir\)"):
        load(tmp_path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1]), pickle.dumps({"data": [1, 2]})])
def test_a_damaged_file_is_named(tmp_path, content):
    (written(tmp_path) / "cifar-100-python" / "train").write_bytes(content)
    with pytest.raises(ValueError, match=r"cifar-100-python/train: .*delete its folder"):
        load(tmp_path)


HUNDRED = tuple(f"thing {i:02d}" for i in range(100))


def images(root, part, names=HUNDRED, size=(32, 32)):
    """An image of 32×32 for each class of a part."""
    for i, name in enumerate(names):
        (root / part / name).mkdir(parents=True)
        picture(i + 1000 * (part == "test"), size).save(root / part / name / "a.png")
    return root


@pytest.mark.parametrize("kind", ["folder", "archives", "folder of archives", "a list"])
def test_images_in_folders_and_archives_are_taken_with_the_statistics_of_the_set(tmp_path, kind):
    root = tmp_path / "in"
    for part in ("train", "test"):
        images(tmp_path / part if kind != "folder" else root, part)
    if kind != "folder":
        root.mkdir()
        root = [zipped(tmp_path / part, root / f"cifar100-{part}.zip") for part in ("train", "test")]
    loaded = load(root[0].parent if kind == "folder of archives" else root)
    assert loaded.classes == HUNDRED and loaded.train.labels.tolist() == list(range(100))
    assert torch.equal(loaded.test.images[7].permute(1, 2, 0), torch.from_numpy(np.array(picture(1007, (32, 32)))))
    own = load(written(tmp_path / "own"))
    assert (loaded.mean, loaded.std) == (own.mean, own.std)


def test_of_archives_of_two_sets_in_a_folder_each_takes_its_own(tmp_path):
    for name, classes in (("CIFAR-10", list("abcdefghij")), ("cifar100", HUNDRED)):
        for part in ("train", "test"):
            zipped(images(tmp_path / name / part, part, classes), tmp_path / f"{name}-{part}.zip")
    assert load(tmp_path).num_classes == 100 and load(tmp_path, "cifar.cifar10").num_classes == 10


def test_the_files_of_the_set_go_before_images_beside_them(tmp_path):
    tree(written(tmp_path))
    assert load(tmp_path).classes == HUNDRED


def test_images_of_other_classes_or_sizes_are_refused_with_what_takes_them(tmp_path):
    with pytest.raises(
        ValueError, match=r"dataset=cifar100 .*: has 2 classes, but the set has 100; dataset=folder takes"
    ):
        load(tree(tmp_path / "two"))
    for part in ("train", "test"):
        images(tmp_path / "small", part, list("abcdefghij"), (12, 10))
    with pytest.raises(ValueError, match=r"dataset=cifar10 .*: its images are 12×10, but the set's are 32×32"):
        load(tmp_path / "small", "cifar.cifar10")
    with pytest.raises(ValueError, match=r"there is no gone.zip"):
        load(tmp_path / "gone.zip")
