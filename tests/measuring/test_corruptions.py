"""Corruptions: held against numpy, scipy, Pillow and torchvision, and drawn by an image's place alone.

It is long because each corruption has an oracle of its own, and all share what must hold for any of them.
"""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from sklearn.datasets import load_digits
from torchvision.transforms.v2 import functional as vision

from kdrun import config
from kdrun.measuring.corruptions import (
    CORRUPTIONS,
    LARGE,
    Draws,
    Step,
    blur,
    brightness,
    contrast,
    corrupt,
    gaussian_noise,
    moved,
    occlusion,
    pixelation,
    salt_and_pepper,
    shot_noise,
)
from kdrun.randomness import CORRUPTION

SIZES = {"digits": (1, 8, 8), "grey": (1, 28, 28), "colour": (3, 32, 32), "wide": (3, 24, 40)}


def scenes(count, channels, height, width, seed=0):
    """Images with large shapes, a rectangle's edges somewhere and some noise, as uint8 (N, C, H, W)."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(count, channels, height, width)), (0, 0, height / 8, width / 8))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    ends = np.sort(rng.integers(0, (height, width), size=(count, 2, 2)), axis=1)
    down, right = (
        (np.arange(side) >= ends[:, 0, i, None]) & (np.arange(side) <= ends[:, 1, i, None])
        for i, side in enumerate((height, width))
    )
    inside = (down[:, :, None] & right[:, None, :])[:, None]
    pixels = 0.15 + 0.5 * smooth + 0.2 * inside + 0.05 * rng.random(smooth.shape)
    return torch.from_numpy((255 * pixels.clip(0, 1)).astype(np.uint8))


def indices(images, start=0):
    return torch.arange(start, start + len(images))


def pixels(images):
    return images.float() / 255


def draws(images, seed=0, name="test"):
    return Draws(CORRUPTION, seed, name, indices(images))


def error(a, b):
    return ((a.double() - b.double()) ** 2).mean().item()


def natural(count, side, seed=0):
    """Grey images with the spectrum of photographs, 1/f, alike at every place, as uint8 (N, 1, side, side)."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1 / side
    result = np.fft.ifft2(np.fft.fft2(rng.normal(size=(count, 1, side, side))) / frequency).real
    result = 0.5 + 0.22 * (result - result.mean((2, 3), keepdims=True)) / result.std((2, 3), keepdims=True)
    return torch.from_numpy((255 * result.clip(0, 1)).round().astype(np.uint8))


def errors(images, name):
    """The mean squared distance from the images as they are, at each severity."""
    return [error(corrupt(images, name, s, seed=0, indices=indices(images)), images) for s in range(1, 6)]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [8, 28, 32, 64])
def test_a_higher_severity_changes_the_images_more(name, side):
    result = errors(natural(100, side), name)
    assert all(b > a for a, b in pairwise(result)), result


@pytest.mark.parametrize("name", ["pixelation", "occlusion"])
def test_so_it_is_on_real_digits_of_8_pixels_of_which_one_is_much(name):
    real = load_digits().images[:500] / 16 * 255
    result = errors(torch.from_numpy(real.astype(np.uint8))[:, None], name)
    assert all(b > 1.05 * a for a, b in pairwise(result)), result


@pytest.mark.parametrize("side", [*range(8, 65), 80, 96, 100, 160])
def test_pixelation_rises_in_severity_at_every_size(side):
    result = errors(natural(60, side), "pixelation")
    assert all(b > a for a, b in pairwise(result)), result


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", SIZES.values(), ids=SIZES)
def test_the_highest_severity_changes_images_of_any_shape_much_more_than_the_lowest(name, shape):
    result = errors(scenes(64, *shape), name)
    assert result[4] > 1.5 * result[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_of_224_pixels_get_the_strengths_of_imagenet_c(name):
    images = scenes(2, 3, 224, 224)
    result = corrupt(images, name, 3, seed=0, indices=indices(images))
    assert result.shape == images.shape and result.dtype == torch.uint8
    strength = CORRUPTIONS[name].large[2]
    expected = CORRUPTIONS[name].apply(pixels(images), strength, draws(images, name=name)).clamp(0, 1)
    assert error(result, 255 * expected) < 0.15  # rounding alone: 1/12


@pytest.mark.parametrize("side", [LARGE - 1, LARGE])
def test_the_shorter_side_decides_which_strengths_apply(side):
    images = scenes(1, 1, 100, side)
    result = error(corrupt(images, "contrast", 1, seed=0, indices=indices(images)), images)
    kept = 0.75 if side < LARGE else 0.4
    mean = images.double().mean()
    assert result == pytest.approx((((1 - kept) * (images.double() - mean)) ** 2).mean().item(), rel=0.05)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_any_batch_and_order(name):
    images = scenes(12, 3, 16, 16)
    whole = corrupt(images, name, 3, seed=5, indices=indices(images))
    for order in ([7, 2, 11], [2], list(reversed(range(12)))):
        some = corrupt(images[order], name, 3, seed=5, indices=torch.tensor(order))
        assert torch.equal(some, whole[order])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_too_many_for_one_go_are_corrupted_in_parts_to_the_same(name, monkeypatch):
    images = scenes(9, 1, 28, 28)
    whole = corrupt(images, name, 5, seed=1, indices=indices(images))
    monkeypatch.setattr("kdrun.measuring.corruptions.CHUNK", 28 * 28 * 2)
    assert torch.equal(corrupt(images, name, 5, seed=1, indices=indices(images)), whole)


def test_seeds_images_and_kinds_of_noise_share_no_draw():
    images = torch.full((2, 1, 28, 28), 128, dtype=torch.uint8)
    at = indices(images)
    first = corrupt(images, "gaussian_noise", 5, seed=0, indices=at).float() - 128
    other_seed = corrupt(images, "gaussian_noise", 5, seed=1, indices=at).float() - 128
    shot = corrupt(images, "shot_noise", 5, seed=0, indices=at).float() - 128
    for a, b in ((first[0], first[1]), (first, other_seed), (first, shot)):
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 0.12
    assert torch.equal(first, corrupt(images, "gaussian_noise", 5, seed=0, indices=at).float() - 128)


def test_a_stronger_noise_is_the_same_noise_stronger():
    images = torch.full((4, 1, 28, 28), 128, dtype=torch.uint8)
    weak, strong = (corrupt(images, "gaussian_noise", s, seed=0, indices=indices(images)).float() for s in (1, 5))
    assert np.corrcoef(weak.flatten(), strong.flatten())[0, 1] > 0.999


def test_uniform_numbers_are_uniform_and_never_0_or_1():
    result = draws(torch.zeros(1000)).uniform(300).double()
    assert result.shape == (1000, 300) and result.min() > 0 and result.max() < 1
    assert stats.kstest(result.flatten().numpy()[::7], "uniform").pvalue > 0.001


def test_gaussian_noise_is_normal_with_its_standard_deviation():
    images = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
    result = gaussian_noise(pixels(images), 0.08, draws(images)) - pixels(images)
    assert result.std().item() == pytest.approx(0.08, rel=0.01)
    assert stats.kstest(result.flatten().double().numpy() / 0.08, "norm").pvalue > 0.001


@pytest.mark.parametrize("photons", [3, 75, 500])
def test_shot_noise_is_the_poisson_quantile_of_its_uniform_number(photons):
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(20, 1, 1, 1)
    result = shot_noise(pixels(images), photons, draws(images)) * photons
    uniform = draws(images).uniform(1, 16, 16).double().numpy()
    expected = stats.poisson.ppf(uniform, images.double().numpy() / 255 * photons)
    expected[images.numpy() == 0] = 0  # a black pixel sends nothing
    assert np.array_equal(result.round().numpy(), expected)


@pytest.mark.parametrize("amount", [0.01, 0.27])
def test_salt_and_pepper_hit_their_share_of_values_half_each(amount):
    images = torch.full((100, 3, 32, 32), 128, dtype=torch.uint8)
    result = salt_and_pepper(pixels(images), amount, draws(images))
    n = result.numel()
    for value in (0.0, 1.0):
        assert stats.binomtest(int((result == value).sum()), n, amount / 2).pvalue > 0.001
    assert ((result == 0) | (result == 1) | (result == pixels(images))).all()


@pytest.mark.parametrize("std", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 24, 40)])
def test_blur_is_scipys_gaussian_filter(std, shape):
    images = scenes(3, *shape)
    result = blur(pixels(images), std, draws(images))
    expected = ndimage.gaussian_filter(pixels(images).double().numpy(), (0, 0, std, std), mode="nearest", truncate=4)
    assert np.abs(result.numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("kept", [0.75, 0.15])
def test_contrast_of_a_grey_image_is_torchvisions(kept):
    images = pixels(scenes(3, 1, 28, 28))
    expected = vision.adjust_contrast(images, kept)
    assert torch.allclose(contrast(images, kept, None).clamp(0, 1), expected, atol=1e-6)


def test_brightness_adds_to_the_value_of_hue_saturation_value():
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    images = pixels(scenes(4, 3, 32, 32))
    hsv = rgb_to_hsv(images.permute(0, 2, 3, 1).numpy())
    hsv[..., 2] = (hsv[..., 2] + 0.3).clip(0, 1)
    expected = hsv_to_rgb(hsv).transpose(0, 3, 1, 2)
    assert np.abs(brightness(images, 0.3, None).numpy() - expected).max() < 1e-5


def test_brightness_of_grey_and_of_black_is_the_sum():
    images = torch.tensor([0.0, 0.2, 0.9]).view(1, 1, 1, 3)
    assert brightness(images, 0.3, None).flatten().tolist() == pytest.approx([0.3, 0.5, 1.0])


@pytest.mark.parametrize("kept", [0.95, 0.65, 0.25])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 224, 224)])
def test_pixelation_is_pillows_box_filter_down_and_up(kept, shape):
    images = scenes(3, *shape)
    result = 255 * pixelation(pixels(images), Step(kept, 1), None)
    side = int(shape[1] * kept)
    for image, own in zip(images, result, strict=True):
        for channel, ours in zip(image, own, strict=True):
            small = Image.fromarray(channel.numpy()).resize((side, side), Image.Resampling.BOX)
            expected = np.asarray(small.resize(shape[1:], Image.Resampling.BOX))
            assert np.abs(ours.numpy() - expected).max() < 1.01  # Pillow rounds after each direction


def test_tiny_images_are_pixelated_by_the_area_that_a_pixel_shares_with_a_box():
    """Worked by hand: 3 pixels in 2 boxes of 1.5; the middle pixel lies half in either."""
    row = torch.tensor([0.0, 0.3, 0.9]).expand(1, 1, 3, 3)
    first, second = (0.0 + 0.5 * 0.3) / 1.5, (0.5 * 0.3 + 0.9) / 1.5
    result = pixelation(row, Step(0.9, 1), None)[0, 0, 0]
    assert result.tolist() == pytest.approx([first, (first + second) / 2, second])


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows(channels):
    images = scenes(3, channels, 28, 28)
    result = corrupt(images, "jpeg", 5, seed=0, indices=indices(images))
    for image, own in zip(images, result, strict=True):
        file = io.BytesIO()
        array = image[0].numpy() if channels == 1 else image.permute(1, 2, 0).numpy()
        Image.fromarray(array).save(file, "JPEG", quality=40)
        read = np.asarray(Image.open(file))
        assert np.array_equal(own[0].numpy() if channels == 1 else own.permute(1, 2, 0).numpy(), read)


@pytest.mark.parametrize(("share", "side"), [(0.2, 5), (0.6, 14)])
def test_occlusion_covers_one_grey_square_wholly_inside_of_each_image(share, side):
    images = torch.zeros(200, 1, 24, 40, dtype=torch.uint8)
    covered = occlusion(pixels(images), Step(share, 0), draws(images))[:, 0] == 0.5
    rows, columns = covered.any(2), covered.any(1)
    assert (covered.sum((1, 2)) == side**2).all() and (rows.sum(1) == side).all() and (columns.sum(1) == side).all()
    tops, lefts = rows.float().argmax(1), columns.float().argmax(1)
    assert tops.min() == 0 and tops.max() == 24 - side and lefts.max() > 40 - side - 3  # all over the image


@pytest.mark.parametrize(("down", "right"), [(2.0, 0.0), (0.0, -3.0), (1.25, -0.6), (-4.5, 2.5)])
def test_shifting_is_scipys_with_the_edge_continued(down, right):
    images = pixels(scenes(2, 3, 24, 40))
    result = moved(images, *(torch.full((2,), v) for v in (down, right, 0.0)))
    expected = ndimage.shift(images.numpy(), (0, 0, down, right), order=1, mode="nearest")
    assert np.abs(result.numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("degrees", [-30.0, 6.0, 90.0])
def test_turning_is_scipys_with_the_edge_continued(degrees):
    images = pixels(scenes(2, 3, 25, 25))
    result = moved(images, torch.zeros(2), torch.zeros(2), torch.full((2,), degrees))
    expected = ndimage.rotate(images.numpy(), -degrees, axes=(2, 3), reshape=False, order=1, mode="nearest")
    assert np.abs(result.numpy() - expected).max() < 1e-3


@pytest.mark.parametrize("degrees", [-18.0, 24.0])
def test_turning_is_torchvisions_away_from_the_edge(degrees):
    images = pixels(scenes(2, 1, 33, 33))
    result = moved(images, torch.zeros(2), torch.zeros(2), torch.full((2,), degrees))
    expected = vision.affine(images, degrees, [0, 0], 1.0, [0, 0], vision.InterpolationMode.BILINEAR)
    assert (result - expected)[:, :, 8:-8, 8:-8].abs().max() < 1e-4


def test_shifts_go_all_ways_as_far_as_the_severity_says_and_turns_to_both_sides():
    images = torch.zeros(60, 1, 33, 33, dtype=torch.uint8)
    images[:, :, 16, 16] = 255
    axis = torch.arange(33.0) - 16
    shifted = corrupt(images, "shift", 5, seed=0, indices=indices(images)).float()[:, 0]
    mass = shifted.sum((1, 2))
    down = (shifted.sum(2) * axis).sum(1) / mass
    right = (shifted.sum(1) * axis).sum(1) / mass
    assert torch.allclose(torch.hypot(down, right), torch.tensor(0.2 * 33), atol=0.1)
    assert {(bool(d > 0), bool(r > 0)) for d, r in zip(down, right, strict=True)} == {
        (a, b) for a in (True, False) for b in (True, False)
    }
    images = torch.zeros(60, 1, 33, 33, dtype=torch.uint8)
    images[:, :, 2, 16] = 255
    turned = corrupt(images, "rotation", 5, seed=0, indices=indices(images)).float()[:, 0]
    right = (turned.sum(1) * axis).sum(1) / turned.sum((1, 2))
    assert torch.allclose(right.abs(), torch.tensor(14 * 0.5), atol=0.15)  # sin 30° of the radius
    assert 10 < (right > 0).sum() < 50


def test_what_does_not_exist_is_refused_with_what_does():
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="no such corruption; there are gaussian_noise, "):
        corrupt(images, "fog", 1, seed=0, indices=indices(images))
    for severity in (0, 6):
        with pytest.raises(ValueError, match=r"must lie in \[1, 5\]"):
            corrupt(images, "blur", severity, seed=0, indices=indices(images))


def test_the_configuration_names_the_corruptions_that_there_are():
    assert tuple(CORRUPTIONS) == config.CORRUPTIONS
    assert all(len(c.small) == len(c.large) == 5 for c in CORRUPTIONS.values())
