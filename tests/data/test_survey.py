import logging
import os

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image, ImageOps

from kdrun.data import survey
from tests.data.given import load_folder, picture, tree, zipped


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


def changed_pixels(copy):
    content = bytearray(copy.read_bytes())
    content[-100:] = bytes(255 - byte for byte in content[-100:])
    return bytes(content)


def changed_header(copy):
    return copy.read_bytes().replace(b'"test.marks"', b'"next.marks"')


def without_checksum(copy):
    tensors = safetensors.torch.load_file(copy)
    return safetensors.torch.save(tensors)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (changed_pixels, "is damaged (its checksum differs)"),
        (changed_header, "is damaged (its checksum differs)"),
        (without_checksum, "was written by a version without checksums"),
        (lambda copy: copy.read_bytes()[:50], "is damaged (Error while deserializing"),
    ],
)
@pytest.mark.parametrize("resident", [True, False])
def test_a_decoded_copy_that_is_not_what_was_written_is_made_anew_and_said(
    tmp_path, own_cache, caplog, damage, reason, resident
):
    root = tree(tmp_path / "images")
    room = 8.0 if resident else 0.0
    first = load_folder(root, max_resident_gb=room)
    (copy,) = own_cache.iterdir()
    written = copy.read_bytes()
    copy.write_bytes(damage(copy))
    second = load_folder(root, max_resident_gb=room)
    assert second.digest == first.digest and (second.mean, second.std) == (first.mean, first.std)
    if resident:
        assert torch.equal(second.train.images, first.train.images)
    assert f"{copy} {reason}" in caplog.text and caplog.text.count("; decoding again") == 1
    assert copy.read_bytes() == written


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDRUN_CACHE", str(tmp_path / "file"))
    assert len(load_folder(tree(tmp_path / "images")).train) == 6
    assert "cannot keep a decoded copy" in caplog.text


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
    assert "text.png: not a PNG, JPEG, WebP, BMP, TIFF or GIF" in message and "dataset.on_bad_image=skip" in message


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
    monkeypatch.setattr(survey, "DECODER", survey.DECODER - 1)
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
    assert "pipe.png: not a regular file" in message and "zeros.png: not a regular file" in message
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
