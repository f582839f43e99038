import pytest
import torch
import torchvision.transforms.v2 as reference
from scipy import stats
from torchvision.transforms.v2 import functional

from kdrun.augment.base import Position, at
from kdrun.augment.rectangles import Rectangles
from kdrun.augment.resized_crop import ResizedCrop
from kdrun.randomness import AUGMENTATION
from tests.augment.given import noise, positions


def sampled(size, count, **settings):
    """The crops that torchvision draws, (4, count): top, left, height, width."""
    torch.manual_seed(0)
    transform, image = reference.RandomResizedCrop(size, **settings), torch.zeros(1, *size)
    drawn = [transform.make_params([image]) for _ in range(count)]
    return torch.tensor([[crop[edge] for crop in drawn] for edge in ("top", "left", "height", "width")])


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 17, 24), (3, 1, 9)])
def test_crops_are_within_one_255th_of_torchvisions_with_antialias_whatever_the_batch(shape):
    images, ours = noise(200, *shape), ResizedCrop()
    draws = ours.draw(positions(200), shape[1:])
    made = ours.apply(images, draws)
    pairs = list(zip(images, torch.stack(draws, 1).tolist(), strict=True))
    wanted = torch.stack([functional.resized_crop(image, *crop, list(shape[1:])) for image, crop in pairs])
    assert (made.int() - wanted.int()).abs().max() <= 1  # on a CPU it rounds between both directions, too
    once = torch.stack([functional.resized_crop(image.float(), *crop, list(shape[1:])) for image, crop in pairs])
    assert (made == once.round()).float().mean() > 0.99
    assert made.dtype == torch.uint8 and made.is_contiguous(memory_format=torch.channels_last)
    parts = [ours.apply(images[part], at(draws, part)) for part in (slice(0, 1), slice(1, 70), slice(70, 200))]
    assert torch.equal(torch.cat(parts), made)


def test_the_whole_image_stays_as_it_is_and_one_pixel_fills_an_image():
    images, ours = noise(3, 3, 11, 7), ResizedCrop()
    top, left, height, width = torch.tensor([[0, 0, 11, 7], [0, 0, 11, 7], [4, 6, 1, 1]]).unbind(1)
    made = ours.apply(images, Rectangles(top, left, height, width))
    assert torch.equal(made[:2], images[:2])
    assert torch.equal(made[2], images[2, :, 4:5, 6:7].expand(3, 11, 7))


@pytest.mark.parametrize(
    "size, scale, ratio",
    [
        ((32, 32), (0.08, 1.0), (3 / 4, 4 / 3)),
        ((28, 40), (0.5, 1.0), (0.5, 1.0)),  # a part of the crops fits in no try
        ((10, 40), (0.9, 1.0), (3 / 4, 4 / 3)),  # too wide: the fallback always
        ((40, 10), (0.9, 1.0), (3 / 4, 4 / 3)),
    ],
)
def test_crops_are_distributed_as_torchvisions(size, scale, ratio):
    ours = torch.stack(ResizedCrop(scale, ratio).draw(positions(20_000), size))
    theirs = sampled(size, 2500, scale=scale, ratio=ratio)
    for crops in (ours, theirs):
        assert (crops[:2] >= 0).all() and (crops[2:] >= 1).all()
        assert (crops[0] + crops[2] <= size[0]).all() and (crops[1] + crops[3] <= size[1]).all()
    for one, other in zip(
        (*ours, ours[2] * ours[3], ours[3] / ours[2]),
        (*theirs, theirs[2] * theirs[3], theirs[3] / theirs[2]),
        strict=True,
    ):
        assert stats.ks_2samp(one, other).pvalue > 0.001
    if scale[0] == 0.9:
        assert torch.equal(ours.unique(dim=1), theirs.unique(dim=1)) and ours.unique(dim=1).shape[1] == 1


def test_the_place_of_a_crop_is_uniform():
    area = 20**2 / 32**2
    top, left, height, width = ResizedCrop((area, area), (1, 1)).draw(positions(13**2 * 300), (32, 32))
    assert height.unique().tolist() == width.unique().tolist() == [20]
    assert stats.chisquare((top * 13 + left).bincount(minlength=13**2)).pvalue > 0.001


def test_a_crop_is_a_function_of_its_position_alone():
    ours, size = ResizedCrop((0.5, 1.0), (0.5, 1.0)), (28, 40)
    whole = ours.draw(positions(100, 5, 2), size)
    some = ours.draw(Position((AUGMENTATION, 5, 2), torch.tensor([70, 3, 99])), size)
    for all_of_them, few in zip(whole, some, strict=True):
        assert torch.equal(all_of_them[[70, 3, 99]], few)
    for other in (ours.draw(positions(100, 6, 2), size), ours.draw(positions(100, 5, 3), size)):
        assert (whole.width == other.width).float().mean() < 0.3


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"scale": (0.0, 1.0)}, r"scale=\[0.0, 1.0\]: must be \[least, most\], two rising numbers in \(0, 1\]"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"scale": (0.9, 0.5)}, "scale"),
        ({"ratio": (1.0,)}, r"ratio=\[1.0\]: must be \[least, most\], two rising numbers above 0"),
        ({"ratio": (1.0, float("inf"))}, "ratio"),
        ({"ratio": 0.75}, r"ratio=0.75: must be \[least, most\]"),
    ],
)
def test_ranges_that_are_none_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        ResizedCrop(**settings)
