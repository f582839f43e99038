import pytest
import torch
import torchvision.transforms.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kdrun.augment.base import Position
from kdrun.augment.crop_flip import CropFlip, Draws
from kdrun.data.normalisation import Normalisation
from kdrun.randomness import AUGMENTATION
from tests.data.given import MEAN, STD, image_set


def position(seed, epoch, indices):
    return Position((AUGMENTATION, seed, epoch), torch.as_tensor(indices))


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
    augmentation = CropFlip(padding, flip)
    draws = augmentation.draw(position(seed, 3, range(8)), (height, width))
    normalise = Normalisation(MEAN[:channels], STD[:channels], width, torch.device("cpu"))
    made = normalise(augmentation.apply(images, draws))
    for image, result, top, left, mirrored in zip(images, made, *draws, strict=True):
        assert torch.equal(result, by_torchvision(image, padding, int(top), int(left), bool(mirrored)))


def test_all_256_pixel_values_are_normalised_bit_for_bit_as_by_torchvision():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    normalise = Normalisation(MEAN, STD, 16, torch.device("cpu"))
    made = normalise(images)
    assert torch.equal(made[0], by_torchvision(images[0], 0, 0, 0, False))
    assert made.dtype == torch.float32 and made.is_contiguous(memory_format=torch.channels_last)
    floats = images.float().contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalise(floats), made) and torch.equal(floats, images.float())  # which are left as they were


@pytest.mark.parametrize(("padding", "flip", "count"), [(4, True, 162), (2, True, 50), (1, False, 9), (0, True, 2)])
def test_every_form_is_drawn_equally_often_and_is_found_by_its_number(padding, flip, count):
    from scipy import stats

    augmentation = CropFlip(padding, flip)
    draws = augmentation.draw(position(0, 0, range(count * 300)), (8, 8))
    forms = augmentation.forms(draws)
    assert augmentation.form_count == count
    assert stats.chisquare(forms.bincount(minlength=count)).pvalue > 0.001
    assert all(torch.equal(a, b) for a, b in zip(augmentation.of_forms(forms), draws, strict=True))


def test_draws_are_a_function_of_seed_epoch_and_index_alone():
    def draw(seed, epoch, indices):
        return CropFlip(4, True).draw(position(seed, epoch, indices), (8, 8))

    whole, part = draw(5, 2, range(100)), draw(5, 2, [70, 3, 99])
    for all_of_them, some in zip(whole, part, strict=True):
        assert torch.equal(all_of_them[[70, 3, 99]], some)
    for other in [draw(6, 2, range(100)), draw(5, 3, range(100))]:
        assert (whole.top == other.top).float().mean() < 0.3


def test_draws_are_those_of_all_versions_before():
    """Trainings of earlier versions, whose fingerprints have not changed, are found again and continued."""
    draws = CropFlip(4, True).draw(position(1, 2, range(20, 30)), (8, 8))
    assert [d.int().tolist() for d in draws] == [
        [2, 5, 6, 6, 2, 4, 3, 4, 7, 2],
        [2, 2, 1, 2, 2, 5, 4, 7, 5, 1],
        [1, 1, 1, 0, 0, 1, 1, 0, 0, 0],
    ]


def test_padding_is_black_before_normalisation():
    images = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    corner = Draws(torch.tensor([0]), torch.tensor([0]), torch.tensor([False]))
    made = CropFlip(2, False).apply(images, corner)
    assert made[0, 0].tolist() == [[0] * 4, [0] * 4, [0, 0, 255, 255], [0, 0, 255, 255]]


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bits():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images, augmentation = image_set(64).images, CropFlip(4, True)
    made = []
    for device in ("cpu", "cuda"):
        draws = Draws(*(d.to(device) for d in augmentation.draw(position(1, 2, range(64)), (32, 32))))
        normalise = Normalisation(MEAN, STD, 32, torch.device(device))
        made.append(normalise(augmentation.apply(images.to(device), draws)).cpu())
    assert torch.equal(*made)
