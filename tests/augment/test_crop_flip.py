import pytest
import torch
import torchvision.transforms.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kdrun.data.augmentation import Augmentation, Draws, Normalisation, augment, draw
from tests.data.given import MEAN, STD, image_set


def by_torchvision(image, padding, top, left, mirrored):
    """What RandomCrop(size, padding), RandomHorizontalFlip, ToTensor and Normalize do after drawing."""
    channels, height, width = image.shape
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    pil = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    if padding:
        pil = reference.pad(pil, padding)
    pil = reference.crop(pil, top, left, height, width)
    pil = reference.hflip(pil) if mirrored else pil
    return reference.normalize(reference.to_tensor(pil), MEAN[:channels], STD[:channels])


@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    padding=st.integers(0, 5),
    flip=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_any_shape_is_augmented_bit_for_bit_as_by_torchvision(channels, height, width, padding, flip, seed):
    images = image_set(8, channels, (height, width)).images
    augmentation = Augmentation(padding, flip)
    draws = draw(augmentation, seed, 3, torch.arange(8))
    normalise = Normalisation(MEAN[:channels], STD[:channels], width, torch.device("cpu"))
    made = normalise(augment(images, augmentation, draws))
    for image, result, top, left, mirrored in zip(images, made, *draws, strict=True):
        assert torch.equal(result, by_torchvision(image, padding, int(top), int(left), bool(mirrored)))


def test_all_256_pixel_values_are_normalised_bit_for_bit_as_by_torchvision():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    made = Normalisation(MEAN, STD, 16, torch.device("cpu"))(images)
    assert torch.equal(made[0], by_torchvision(images[0], 0, 0, 0, False))
    assert made.dtype == torch.float32 and made.is_contiguous(memory_format=torch.channels_last)


def test_every_crop_and_both_sides_are_drawn_equally_often():
    from scipy import stats

    draws = draw(Augmentation(4, True), 0, 0, torch.arange(81 * 2 * 300))
    cells = (draws.top * 9 + draws.left) * 2 + draws.mirrored
    assert stats.chisquare(cells.bincount(minlength=162)).pvalue > 0.001


def test_draws_are_a_function_of_seed_epoch_and_index_alone():
    augmentation = Augmentation(4, True)
    whole = draw(augmentation, 5, 2, torch.arange(100))
    part = draw(augmentation, 5, 2, torch.tensor([70, 3, 99]))
    for all_of_them, some in zip(whole, part, strict=True):
        assert torch.equal(all_of_them[[70, 3, 99]], some)
    for other in [draw(augmentation, 6, 2, torch.arange(100)), draw(augmentation, 5, 3, torch.arange(100))]:
        assert (whole.top == other.top).float().mean() < 0.3


def test_padding_is_black_before_normalisation():
    images = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    corner = Draws(torch.tensor([0]), torch.tensor([0]), torch.tensor([False]))
    made = augment(images, Augmentation(2, False), corner)
    assert made[0, 0].tolist() == [[0] * 4, [0] * 4, [0, 0, 255, 255], [0, 0, 255, 255]]


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bits():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images, augmentation = image_set(64).images, Augmentation(4, True)
    made = []
    for device in ("cpu", "cuda"):
        draws = draw(augmentation, 1, 2, torch.arange(64, device=device))
        normalise = Normalisation(MEAN, STD, 32, torch.device(device))
        made.append(normalise(augment(images.to(device), augmentation, draws)).cpu())
    assert torch.equal(*made)
