import pytest
import torch
import torchvision.transforms.v2 as reference
from scipy import stats
from torchvision.transforms.v2 import functional

from kdrun.augment.base import Position
from kdrun.augment.erasing import Erasing
from kdrun.randomness import AUGMENTATION
from tests.augment.given import noise, positions


@pytest.mark.parametrize("value", [None, 0, 0.25])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 17, 24)])
def test_erased_images_equal_torchvisions_bit_for_bit_and_the_rest_is_not_changed(shape, value):
    images, ours = noise(200, *shape), Erasing(value=value)
    before = images.clone()
    ours.mean = (0.51, 0.485, 0.44)[: shape[0]]
    levels = [130, 124, 112] if value is None else [round(255 * value)] * 3  # times 255, rounded
    fill = torch.tensor(levels[: shape[0]])[:, None, None]
    draws = ours.draw(positions(200), shape[1:])
    made = ours.apply(images, draws)
    for image, result, (top, left, height, width) in zip(images, made, torch.stack(draws, 1).tolist(), strict=True):
        assert torch.equal(result, functional.erase(image, top, left, height, width, fill))
    assert 70 < (made != images).flatten(1).any(1).sum() < 130  # half of them
    assert torch.equal(images, before) and made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "size, scale, ratio",
    [
        ((32, 32), (0.02, 0.33), (0.3, 3.3)),
        ((28, 40), (0.3, 0.9), (0.3, 1.0)),  # a part of the rectangles fits in no try
        ((6, 6), (0.002, 0.03), (0.3, 3.3)),  # sides are rounded to 0 at times, which erases nothing
    ],
)
def test_rectangles_are_distributed_as_torchvisions(size, scale, ratio):
    drawn = torch.stack(Erasing(1.0, scale, ratio).draw(positions(20_000), size))
    torch.manual_seed(0)
    transform, image = reference.RandomErasing(1.0, scale, ratio), torch.zeros(1, *size)
    tried = [transform.make_params([image]) for _ in range(2500)]
    theirs = torch.tensor([[t[edge] * (t["v"] is not None) for t in tried] for edge in ("i", "j", "h", "w")])
    drawn = drawn * (drawn[2] > 0)
    theirs = theirs * (theirs[2] > 0)
    for one, other in zip((*drawn, drawn[2] * drawn[3]), (*theirs, theirs[2] * theirs[3]), strict=True):
        assert stats.ks_2samp(one, other).pvalue > 0.001
    missed, missed_there = (drawn[2] == 0).sum(), (theirs[2] == 0).sum()
    counts = [[missed, 20_000 - missed], [missed_there, 2500 - missed_there]]
    assert missed == missed_there == 0 or stats.chi2_contingency(counts).pvalue > 0.001


def test_images_are_erased_with_their_probability_each_by_its_position_alone():
    ours, size = Erasing(0.2), (32, 32)
    whole = ours.draw(positions(20_000, 5, 2), size)
    assert stats.binomtest(int((whole.height > 0).sum()), 20_000, 0.2).pvalue > 0.001
    some = ours.draw(Position((AUGMENTATION, 5, 2), torch.tensor([70, 3, 99])), size)
    for all_of_them, few in zip(whole, some, strict=True):
        assert torch.equal(all_of_them[[70, 3, 99]], few)
    assert (whole.top == ours.draw(positions(20_000, 5, 3), size).top).float().mean() < 0.1


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"probability": 0}, r"probability=0: must lie in \(0, 1\]; without it, omit erasing from augment"),
        ({"probability": 1.1}, "probability=1.1"),
        ({"value": 124}, r"value=124: must lie in \[0, 1\], 0 = black, or be null, the mean of the data"),
        ({"scale": (0.5, 0.1)}, "scale"),
        ({"ratio": (0.0, 1.0)}, "ratio"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Erasing(**settings)
