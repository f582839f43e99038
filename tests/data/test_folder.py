import logging
import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from kdrun import data
from kdrun.data import folder
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


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("RGBA", "png"), ("LA", "png"), ("P", "png"), ("1", "png"), ("CMYK", "jpg")],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_is_converted_as_by_pillow(tmp_path, mode, suffix, channels):
    root = tree(tmp_path)
    file = root / "train" / "cat" / f"0.{suffix}"
    (root / "train" / "cat" / "0.png").unlink()
    picture(1, mode="RGB" if mode == "LA" else mode).convert(mode).save(file)
    loaded = load_folder(root, channels=channels)
    wanted = np.asarray(Image.open(file).convert("L" if channels == 1 else "RGB")).reshape(10, 12, channels)
    assert loaded.in_channels == channels
    assert torch.equal(loaded.train.images[0].permute(1, 2, 0), torch.from_numpy(wanted.copy()))


def test_sixteen_bits_become_eight(tmp_path):
    root = tree(tmp_path)
    deep = np.random.default_rng(0).integers(0, 2**16, (10, 12)).astype(np.uint16)
    Image.fromarray(deep).save(root / "train" / "cat" / "0.png")
    loaded = load_folder(root, channels=1)
    assert loaded.train.images[0, 0].tolist() == (deep >> 8).tolist()


@pytest.mark.parametrize(("colourful", "channels"), [(False, 1), (True, 3)])
def test_a_set_is_grey_only_when_every_image_is(tmp_path, colourful, channels):
    root = tree(tmp_path)
    for file in root.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    if colourful:
        picture(3).save(root / "test" / "dog" / "2.png")
    loaded = load_folder(root)
    assert loaded.in_channels == loaded.train.in_channels == len(loaded.mean) == channels


@pytest.mark.parametrize(("size", "wanted"), [(8, (8, 8)), ([6, 9], (6, 9)), (20, (20, 20))])
def test_resizing_is_that_of_pillow(tmp_path, size, wanted):
    root = tree(tmp_path)
    picture(3, (31, 17)).save(root / "train" / "cat" / "0.png")
    loaded = load_folder(root, size=size)
    image = ImageOps.fit(picture(3, (31, 17)), wanted[::-1], method=Image.Resampling.BILINEAR)
    assert loaded.image_size == wanted
    assert torch.equal(loaded.train.images[0].permute(1, 2, 0), torch.from_numpy(np.array(image)))


def test_different_sizes_are_an_error_that_names_two_and_what_to_type(tmp_path):
    root = tree(tmp_path)
    picture(3, (31, 17)).save(root / "train" / "dog" / "0.png")
    with pytest.raises(ValueError, match=r"cat/0.png is 12×10, .*dog/0.png is 31×17; type dataset.size=10"):
        load_folder(root)


def test_the_second_start_reads_the_decoded_copy_and_a_changed_byte_makes_a_new_one(tmp_path, own_cache):
    root = tree(tmp_path / "images")
    first = load_folder(root)
    (copy,) = own_cache.iterdir()
    stamp = copy.stat().st_mtime_ns
    assert load_folder(root).digest == first.digest and copy.stat().st_mtime_ns == stamp
    picture(77).save(root / "train" / "cat" / "0.png")
    changed = load_folder(root)
    assert changed.digest != first.digest and len(list(own_cache.iterdir())) == 2
    copy.write_bytes(copy.read_bytes()[:50])
    picture(0).save(root / "train" / "cat" / "0.png")
    assert load_folder(root).digest == first.digest


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDRUN_CACHE", str(tmp_path / "file"))
    assert len(load_folder(tree(tmp_path / "images")).train) == 6
    assert "no decoded copy kept" in caplog.text


def damage(root):
    cat = root / "train" / "cat"
    (cat / "zero.png").write_bytes(b"")
    (cat / "text.png").write_text("no image")
    picture(1, (64, 64)).save(cat / "half.jpg")
    (cat / "half.jpg").write_bytes((cat / "half.jpg").read_bytes()[:800])


def test_corrupt_images_stop_the_start_and_are_named(tmp_path):
    root = tree(tmp_path)
    damage(root)
    with pytest.raises(ValueError) as caught:
        load_folder(root, size=8)
    message = str(caught.value)
    assert message.startswith("3 of 15 images cannot be decoded")
    assert "half.jpg: image file is truncated" in message and "zero.png: zero bytes" in message
    assert "text.png: no PNG, JPEG, WebP, BMP, TIFF or GIF" in message and "dataset.on_bad_image=skip" in message


def test_ten_of_many_corrupt_images_are_named_and_all_are_counted(tmp_path):
    root = tree(tmp_path)
    for number in range(25):
        (root / "train" / "cat" / f"bad{number:02d}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"25 of 37 .*bad09.png: zero bytes; and 15 more") as caught:
        load_folder(root)
    assert "bad10" not in str(caught.value)


def test_corrupt_images_are_left_out_on_request_and_announced_each_time(tmp_path, caplog):
    root = tree(tmp_path)
    sound = load_folder(root, size=8)
    damage(root)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            loaded = load_folder(root, size=8, on_bad_image="skip")
        assert "3 of 15 images cannot be decoded and are left out" in caplog.text
        assert torch.equal(loaded.train.images, sound.train.images) and loaded.digest == sound.digest


def test_an_image_that_is_damaged_in_its_archive_is_named(tmp_path):
    archive = zipped(tree(tmp_path / "images"), tmp_path / "all.zip")
    content = bytearray(archive.read_bytes())
    content[content.index(b"IHDR") + 20] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 12 .*all.zip/.*png: damaged in the archive \(Bad CRC-32"):
        load_folder(archive)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    root = tree(tmp_path)
    picture(1, (64, 64)).save(root / "train" / "cat" / "bomb.png")
    for limit in (64 * 64 - 1, 64 * 20):  # Pillow warns above its limit, and raises above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=r"1 of 13 .*bomb.png: .*beyond the limit"):
            load_folder(root, size=8)


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


def tagged(file, orientation, number=1, size=(13, 10)):
    """Save a picture whose file says how it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(number, size).save(file, exif=exif)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_images_are_turned_upright_as_pillow_turns_them(tmp_path, suffix):
    for orientation in range(10):  # 0 and 9 mean nothing
        root = tree(tmp_path / str(orientation), count=1)
        tagged(root / "train" / "cat" / f"a.{suffix}", orientation)
        wanted = ImageOps.exif_transpose(Image.open(root / "train" / "cat" / f"a.{suffix}")).convert("RGB")
        assert wanted.size == ((10, 13) if orientation in (5, 6, 7, 8) else (13, 10))
        fitted = np.array(ImageOps.fit(wanted, (9, 7), method=Image.Resampling.BILINEAR))
        loaded = load_folder(root, size=[7, 9])
        assert torch.equal(loaded.train.images[1].permute(1, 2, 0), torch.from_numpy(fitted)), orientation


def test_the_size_of_a_set_is_that_of_its_upright_images(tmp_path):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            tagged(tmp_path / part / name / "portrait.png", 6)
    assert load_folder(tmp_path).image_size == (13, 10)  # stored as 13 wide and 10 high
    tagged(tmp_path / "test" / "dog" / "z.png", 1)
    with pytest.raises(ValueError, match=r"portrait.png is 10×13, .*z.png is 13×10"):
        load_folder(tmp_path)


def test_a_damaged_tag_says_nothing(tmp_path):
    root = tree(tmp_path, count=1)
    picture(1).save(root / "train" / "cat" / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff")
    loaded = load_folder(root)
    assert torch.equal(loaded.train.images[1].permute(1, 2, 0), torch.from_numpy(np.array(picture(1))))


def test_sets_without_a_tag_keep_the_digest_that_they_always_had(tmp_path):
    """Written down from a version that knew no tags."""
    digest = "148d273804043d8ee94bb5acebc959fb8639daf12d705e544333f810fa376b51"
    assert load_folder(tree(tmp_path, count=2, parts=("train", "test", "val"))).digest == digest


def test_decoded_copies_of_another_decoder_are_not_read(tmp_path, monkeypatch, own_cache):
    root = tree(tmp_path / "images")
    load_folder(root)
    monkeypatch.setattr(folder, "DECODER", folder.DECODER - 1)
    load_folder(root)
    assert len(list(own_cache.iterdir())) == 2


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [("bmp", "RGB"), ("tif", "RGB"), ("TIFF", "L"), ("gif", "P"), ("tiff", "CMYK"), ("tif", "1"), ("bmp", "L")],
)
def test_bmp_tiff_and_gif_are_read_as_by_pillow(tmp_path, suffix, mode):
    root = tree(tmp_path, count=1)
    file = root / "train" / "cat" / f"a.{suffix}"
    picture(1, mode="RGB" if mode == "P" else mode).convert(mode).save(file)
    wanted = np.array(Image.open(file).convert("RGB"))
    assert torch.equal(load_folder(root).train.images[1].permute(1, 2, 0), torch.from_numpy(wanted))


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp"])
def test_of_several_frames_the_first_is_taken(tmp_path, suffix):
    root = tree(tmp_path, count=1)
    frames = [Image.new("RGB", (12, 10), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    more = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(root / "train" / "cat" / f"a.{suffix}", save_all=True, append_images=frames[1:], **more)
    assert load_folder(root).train.images[1].flatten(1).float().mean(1).tolist() == [255, 0, 0]


def test_pixels_of_an_unknown_scale_are_refused_rather_than_cut_off(tmp_path):
    root = tree(tmp_path)
    Image.fromarray(np.full((10, 12), 0.5, np.float32)).save(root / "train" / "cat" / "a.tiff")
    Image.fromarray(np.full((10, 12), 70_000, np.int32)).save(root / "train" / "dog" / "b.tiff")
    with pytest.raises(
        ValueError, match=r"2 of 14 .*a.tiff: floating-point .*b.tiff: values from 70000 to 70000, beyond"
    ):
        load_folder(root)


def unreadable(root):
    """A broken link, a folder with an image's name, a pipe and a device; the number of them."""
    cat = root / "train" / "cat"
    (cat / "gone.png").symlink_to("nowhere.png")
    (cat / "folder.png").mkdir()
    os.mkfifo(cat / "pipe.png")
    (cat / "zeros.png").symlink_to("/dev/zero")
    return 4


@pytest.mark.parametrize("max_resident_gb", [8.0, 0.0])
def test_what_cannot_be_read_is_named_with_the_other_bad_images_and_can_be_left_out(tmp_path, max_resident_gb):
    root = tree(tmp_path)
    sound = load_folder(root, max_resident_gb=max_resident_gb)
    damage(root)
    (root / "train" / "cat" / "half.jpg").unlink()
    count = unreadable(root) + 2
    with pytest.raises(ValueError) as caught:
        load_folder(root, max_resident_gb=max_resident_gb)
    message = str(caught.value)
    assert message.startswith(f"{count} of {12 + count} images cannot be decoded")
    assert "gone.png: a broken link, to nowhere.png" in message and "folder.png: Is a directory" in message
    assert "pipe.png: no regular file" in message and "zeros.png: no regular file" in message
    assert "zero.png: zero bytes" in message
    skipped = load_folder(root, on_bad_image="skip", max_resident_gb=max_resident_gb)
    assert skipped.digest == sound.digest


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_and_folders_without_permission_are_named(tmp_path):
    root = tree(tmp_path)
    (root / "train" / "cat" / "0.png").chmod(0)
    with pytest.raises(ValueError, match=r"1 of 12 .*train/cat/0.png: Permission denied"):
        load_folder(root)
    (root / "train" / "dog").chmod(0)
    with pytest.raises(ValueError, match=r"train/dog: this folder cannot be read \(Permission denied\)"):
        load_folder(root)
    (root / "train" / "dog").chmod(0o755)


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
            f"{root}/train/cat/0.png: accuracy on them flatters; remove them from one of the two"
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
    (said,) = caplog.messages
    assert said.startswith("validation has no image of 1 of 2 classes, e.g. dog (3 for training): ")
    fraction = float(said.rpartition("dataset.val_fraction=")[2])
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
