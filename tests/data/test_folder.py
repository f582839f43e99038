import numpy as np
import pytest
import torch
from PIL import Image

from kdrun import data
from tests.data.given import folder_arguments, load_folder, picture, real_data, tree, zipped


def test_pixels_labels_and_classes_are_those_of_the_files_in_alphabetical_order(tmp_path):
    loaded = load_folder(tree(tmp_path, classes=("zebra", "ant", "Bee")))
    assert loaded.classes == ("Bee", "ant", "zebra")
    assert loaded.train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    wanted = np.array(Image.open(tmp_path / "train" / "ant" / "1.png"))
    assert torch.equal(loaded.train.images[4].permute(1, 2, 0), torch.from_numpy(wanted))
    assert loaded.image_size == (10, 12) and loaded.in_channels == 3


def test_a_folder_its_archive_and_two_archives_of_its_parts_are_the_same_set(tmp_path):
    root = tree(tmp_path / "images")
    whole = load_folder(root)
    archived = load_folder(zipped(root, tmp_path / "all.zip"))
    halves = []
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        (root / part).rename(tmp_path / part / part)
        halves.append(str(zipped(tmp_path / part, tmp_path / f"{part}.zip")))
    merged = load_folder(halves)
    assert whole.digest == archived.digest == merged.digest
    assert torch.equal(whole.test.images, merged.test.images)


def test_statistics_are_those_of_the_training_images(tmp_path):
    loaded = load_folder(tree(tmp_path), val_fraction=0.34)
    files = sorted(tmp_path.glob("train/*/*.png"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files]).reshape(-1, 3) / 255
    assert np.allclose(loaded.mean, pixels.mean(0), atol=1e-6) and np.allclose(loaded.std, pixels.std(0), atol=1e-6)


def test_a_val_part_of_its_own_is_used_as_it_is(tmp_path):
    loaded = load_folder(tree(tmp_path, parts=("train", "test", "val")), val_fraction=0.1)
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (6, 6, 6)
    wanted = np.array(Image.open(tmp_path / "val" / "cat" / "0.png"))
    assert torch.equal(loaded.val.images[0].permute(1, 2, 0), torch.from_numpy(wanted))


def test_without_one_it_is_held_out_by_the_split_seed(tmp_path):
    tree(tmp_path, count=10)
    loaded = load_folder(tmp_path, val_fraction=0.2)
    assert loaded.val.labels.tolist() == [0, 0, 1, 1] and len(loaded.train) == 16
    assert torch.equal(loaded.val.images, load_folder(tmp_path, val_fraction=0.2).val.images)


def test_hidden_files_and_other_kinds_are_ignored_and_suffixes_may_be_capitals(tmp_path):
    root = tree(tmp_path)
    picture(5).save(root / "train" / "cat" / "4.PNG")
    picture(6).save(root / "train" / "cat" / "5.JpEg", "JPEG")
    picture(7).save(root / "train" / "cat" / "6.webp", lossless=True)
    (root / "train" / "cat" / ".7.png").write_text("hidden")
    (root / "train" / "cat" / "notes.txt").write_text("text")
    (root / "train" / ".git").mkdir()
    (root / "__MACOSX" / "train" / "cat").mkdir(parents=True)
    assert load_folder(root).train.labels.tolist() == [0] * 6 + [1] * 3
    assert load_folder(zipped(root, tmp_path / "all.zip")).train.labels.tolist() == [0] * 6 + [1] * 3


def test_different_sizes_are_an_error_that_names_two_and_what_to_type(tmp_path):
    root = tree(tmp_path)
    picture(3, (31, 17)).save(root / "train" / "dog" / "0.png")
    with pytest.raises(ValueError, match=r"cat/0.png is 12×10, .*dog/0.png is 31×17; type dataset.size=10"):
        load_folder(root)


def test_a_class_that_loses_all_its_images_is_an_error(tmp_path):
    root = tree(tmp_path)
    for file in (root / "test" / "dog").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"mine: test has no image of dog"):
        load_folder(root, on_bad_image="skip")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, r"dataset.size=0: needs one number of pixels, or \[height,width\]"),
        ({"size": [1, 2, 3]}, "dataset.size"),
        ({"channels": 2}, "dataset.channels=2: choose 1"),
        ({"on_bad_image": "ignore"}, "dataset.on_bad_image=ignore: choose stop or skip"),
        ({"max_resident_gb": -1.0}, "dataset.max_resident_gb=-1"),
        ({"root": None}, "dataset.root: which images"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        load_folder(**{"root": tree(tmp_path), **wrong})


def test_through_load_the_keys_may_be_lists(tmp_path):
    tree(tmp_path)
    arguments = folder_arguments([str(tmp_path)], size=[6, 6])
    assert data.load("folder.folder", **arguments).image_size == (6, 6)


@pytest.mark.parametrize("max_resident_gb", [8.0, 0.0])
def test_test_images_are_drawn_stratified_by_the_split_seed_and_belong_to_the_identity(tmp_path, max_resident_gb):
    for name, count in (("ant", 40), ("bee", 10), ("cow", 2)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(count):
            picture(1000 * count + i).save(tmp_path / "images" / name / f"{i}.png")

    def drawn(**changed):
        return load_folder(tmp_path / "images", max_resident_gb=max_resident_gb, **{"test_fraction": 0.2, **changed})

    first = drawn()
    assert first.test.labels.bincount().tolist() == [8, 2, 1]  # 20% of each, and one of the smallest
    assert first.train.labels.bincount().tolist() == [32, 8, 1]
    assert drawn().digest == first.digest
    assert len({first.digest, drawn(split_seed=1).digest, drawn(test_fraction=0.3).digest}) == 3
    held = drawn(val_fraction=0.2)
    assert held.digest == first.digest and len(held.val) == 8 and len(held.train) == 33


def test_no_drawn_test_image_is_a_training_image(tmp_path):
    tree(tmp_path, count=20, parts=("",))
    loaded = load_folder(tmp_path, test_fraction=0.25, val_fraction=0.2)
    rows = [one.numpy().tobytes() for part in (loaded.train, loaded.val, loaded.test) for one in part.images]
    assert len(set(rows)) == len(rows) == 40 and [len(loaded.train), len(loaded.val), len(loaded.test)] == [24, 6, 10]


@pytest.mark.parametrize(
    ("fraction", "message"),
    [(0.0, r"must lie in \(0, 1\)"), (1.0, r"must lie in \(0, 1\)"), (0.2, r"dog has a single image, too few")],
)
def test_a_share_that_cannot_be_drawn_is_refused(tmp_path, fraction, message):
    tree(tmp_path, parts=("",))
    for number in (1, 2):
        (tmp_path / "dog" / f"{number}.png").unlink()
    with pytest.raises(ValueError, match=rf"dataset.test_fraction={fraction:g}: {message}"):
        load_folder(tmp_path, test_fraction=fraction)


@pytest.mark.parametrize("max_resident_gb", [8.0, 0.0])
def test_test_images_that_are_training_images_are_counted_with_an_example_each_time(tmp_path, caplog, max_resident_gb):
    root = tree(tmp_path / "images")
    picture(0).save(root / "test" / "cat" / "again.png")
    picture(100).save(root / "test" / "cat" / "other class.bmp")  # the same pixels in another kind of file
    for _ in range(2):
        caplog.clear()
        load_folder(root, max_resident_gb=max_resident_gb)
        assert caplog.messages == [
            f"2 of 8 test images are also training images, 1 under another class, e.g. {root}/test/cat/again.png is "
            f"{root}/train/cat/0.png: this inflates the accuracy; remove them from one of the two"
        ]


def test_validation_images_that_are_training_images_are_counted_too(tmp_path, caplog):
    root = tree(tmp_path, parts=("train", "test", "val"))
    picture(20_000).save(root / "test" / "cat" / "of val.png")
    picture(1).save(root / "val" / "cat" / "of train.png")
    load_folder(root)
    assert [message.split(",")[0] for message in caplog.messages] == [
        "1 of 7 val images are also training images",
        "1 of 7 test images are also training or validation images",
    ]


def test_a_class_too_small_for_the_held_out_share_is_named_with_a_share_that_suffices(tmp_path, caplog):
    root = tree(tmp_path / "images", count=1)
    for i in range(200):
        picture(500 + i).save(root / "train" / "cat" / f"{i}.png")
    for i in range(3):
        picture(800 + i).save(root / "train" / "dog" / f"{i}.png")
    assert load_folder(root, val_fraction=0.1).val.labels.bincount(minlength=2).tolist() == [20, 0]
    (message,) = caplog.messages
    assert message.startswith("validation has no image of 1 of 2 classes, e.g. dog (3 for training): ")
    fraction = float(message.rpartition("dataset.val_fraction=")[2])
    caplog.clear()
    assert load_folder(root, val_fraction=fraction).val.labels.bincount()[1] >= 1 and not caplog.messages


@pytest.mark.slow
def test_cifar100_from_its_archives_has_its_published_shape_and_statistics():
    root = real_data("cifar100-train.zip", "cifar100-test.zip")
    loaded = load_folder([str(root / f"cifar100-{p}.zip") for p in ("train", "test")])
    assert (len(loaded.train), len(loaded.test), loaded.num_classes) == (50_000, 10_000, 100)
    assert set(loaded.train.labels.bincount().tolist()) == {500}
    assert np.allclose(loaded.mean, (0.5071, 0.4865, 0.4409), atol=1e-4)
    assert np.allclose(loaded.std, (0.2673, 0.2564, 0.2762), atol=1e-4)
