"""RandAugment and TrivialAugment against torchvision's own, one image at a time."""

from collections import Counter

import pytest
import torch
import torchvision.transforms.v2 as reference
from scipy import stats
from torchvision.transforms.v2 import functional

from kdrun.augment.base import Position, at, to_device
from kdrun.augment.operations import OPERATIONS, Draws, applied, settings
from kdrun.augment.randaugment import RandAugment
from kdrun.augment.trivial import TrivialAugment
from kdrun.randomness import AUGMENTATION
from tests.augment.given import noise, positions

NAMES = list(reference.RandAugment._AUGMENTATION_SPACE)
# Where torchvision rounds a + b·c once (FMA), as it does in vectors on these CPUs, all is equal bit for bit. What is
# left over at the end of an image it rounds twice, so that a pixel's value depends on where it lies in memory.
FUSED = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
BLENDED = {"Color", "Contrast", "Sharpness"}
# Here torchvision computes the places by a matrix product, which rounds as the machine's library does: halfway between
# two pixels either one may be taken.
SAMPLED = {"ShearX", "ShearY", "Rotate"}
USUAL, ODD = [(3, 32, 32), (1, 28, 28), (3, 17, 24)], [(1, 31, 33), (3, 31, 33), (3, 2, 7)]


def pictures(count, *shape):
    """Noise, smooth images, grey ones (equal channels) and one of a single value: uint8, channels_last."""
    smooth = functional.resize(noise(count, shape[0], 5, 5), list(shape[1:]))
    kinds = [noise(count, *shape), smooth, smooth[:, :1].expand_as(smooth), torch.full_like(smooth[:1], 77)]
    return torch.cat(kinds).contiguous(memory_format=torch.channels_last)


def by_torchvision(images, cls, name, magnitude):
    one = cls()
    return one._apply_image_or_video_transform(images, name, magnitude, one.interpolation, one._fill)


def halfway(settings, size):
    """Where the place that is sampled lies halfway between two pixels: (N, 1, H, W)."""
    height, width = size
    x = torch.arange(width).double() - (width - 1) / 2
    y = torch.arange(height).double()[:, None] - (height - 1) / 2
    a, b, c = settings.double().view(-1, 2, 1, 1, 3).unbind(-1)
    places = ((a * x + b * y + c + 1) * torch.tensor([width, height]).view(2, 1, 1) - 1) / 2
    return (places - places.floor() - 0.5).abs().amin(1, keepdim=True) < 1e-4


@pytest.mark.parametrize("shape", USUAL + ODD, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("cls", [reference.RandAugment, reference.TrivialAugmentWide])
def test_each_operation_equals_torchvisions_at_each_of_its_magnitudes_and_signs(cls, shape):
    images, size = pictures(1, *shape), shape[1:]
    tables = [TrivialAugment().magnitudes(size)]
    if cls is reference.RandAugment:
        tables = [RandAugment(1, M).magnitudes(size) for M in range(31)]
    table = torch.cat(tables, 1)
    needed = settings(table, size)
    for place, (name, (space, signed)) in enumerate(cls._AUGMENTATION_SPACE.items()):
        magnitudes = space(31, *size)
        if magnitudes is not None:
            assert table[place].tolist() == [float(magnitude) for magnitude in magnitudes]
        cells = [(bin, negative) for bin in range(31 if magnitudes is not None else 1) for negative in (0, 1)]
        wanted, draws = [], []
        for bin, negative in cells:
            magnitude = float(table[place, bin]) * (-1 if negative and signed else 1)
            wanted.append(by_torchvision(images, cls, name, magnitude))
            draws.append(needed[place, bin, negative].expand(len(images), 1, -1))
        operation = torch.full((len(images) * len(cells), 1), place)
        made = applied(images.repeat(len(cells), 1, 1, 1), Draws(operation, torch.cat(draws)))
        equal = made == torch.cat(wanted)
        if name in SAMPLED:
            equal_but_for_ties = equal | torch.cat([halfway(draw[:, 0], size) for draw in draws])
            assert equal_but_for_ties.all(), name
        if name in SAMPLED or (name in BLENDED and not (FUSED and shape in USUAL)):
            assert equal.float().mean() >= 0.999, name
        else:
            assert equal.all(), name


@pytest.mark.parametrize("shape", USUAL, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize(
    "ours, cls", [(RandAugment(3, 13), reference.RandAugment), (TrivialAugment(), reference.TrivialAugmentWide)]
)
def test_a_batch_equals_torchvision_image_by_image_in_whatever_batch_an_image_is(ours, cls, shape):
    images, size = pictures(40, *shape), shape[1:]
    count = len(images)
    draws, table = ours.draw(positions(count), size), ours.magnitudes(size)
    made = ours.apply(images, draws)
    assert made.dtype == torch.uint8 and made.shape == images.shape
    assert made.is_contiguous(memory_format=torch.channels_last)
    equal = []
    for i, choice in enumerate(zip(*ours.choices(positions(count), table.shape[1]), strict=True)):
        wanted, rounded = images[i], set()
        for place, bin, negative in zip(*(values.tolist() for values in choice), strict=True):
            signed = cls._AUGMENTATION_SPACE[NAMES[place]][1]
            magnitude = float(table[place, bin]) * (-1 if negative and signed else 1)
            wanted = by_torchvision(wanted, cls, NAMES[place], magnitude)
            rounded |= {NAMES[place]} & (BLENDED | SAMPLED)
        if not rounded or (FUSED and not rounded & SAMPLED):
            assert torch.equal(made[i], wanted), choice
        equal.append((made[i] == wanted).float().mean())
    assert sum(equal) / count >= 0.99  # one tie before Equalize or Contrast may change a whole image
    parts = [ours.apply(images[part], at(draws, part)) for part in (slice(0, 1), slice(1, 50), slice(50, count))]
    assert torch.equal(torch.cat(parts), made)


def test_our_operations_are_torchvisions_in_its_order_for_both():
    assert [name.replace("_", "") for name in OPERATIONS] == [name.lower() for name in NAMES]
    assert list(reference.TrivialAugmentWide._AUGMENTATION_SPACE) == NAMES


def sampled(cls, count, **settings):
    """The (operation, magnitude) of `count` images that torchvision draws."""
    drawn = Counter()

    class Recorded(cls):
        def _apply_image_or_video_transform(self, image, transform_id, magnitude, **_):
            drawn[transform_id, round(magnitude, 4)] += 1
            return image

    torch.manual_seed(0)
    transform, image = Recorded(**settings), torch.zeros(1, 32, 32, dtype=torch.uint8)
    for _ in range(count):
        transform(image)
    return drawn


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (RandAugment(2, 9), (reference.RandAugment, {"num_ops": 2, "magnitude": 9})),
        (TrivialAugment(5), (reference.TrivialAugmentWide, {"num_magnitude_bins": 5})),
    ],
)
def test_operations_magnitudes_and_signs_are_drawn_as_often_as_by_torchvision(ours, theirs):
    cls, keys = theirs
    table = ours.magnitudes((32, 32))
    choices = ours.choices(positions(20_000), table.shape[1])
    drawn = Counter()
    for place, bin, negative in zip(*(values.flatten().tolist() for values in choices), strict=True):
        name = NAMES[place]
        space, signed = cls._AUGMENTATION_SPACE[name]
        magnitude = float(table[place, bin]) * (-1 if negative and signed else 1)
        drawn[name, 0.0 if space(31, 32, 32) is None else round(magnitude, 4)] += 1
    by_them = sampled(cls, 4000, **keys)
    cells = sorted(drawn | by_them)
    assert stats.chi2_contingency([[counts[cell] for cell in cells] for counts in (drawn, by_them)]).pvalue > 0.001
    operations = choices.operation.flatten().bincount(minlength=14)
    assert stats.chisquare(operations).pvalue > 0.001


def test_the_layers_of_an_image_are_drawn_independently_and_each_by_its_position_alone():
    ours, size = RandAugment(2, 9), (28, 28)
    first, second = ours.choices(positions(20_000), 31).operation.unbind(1)
    pairs = (first * 14 + second).bincount(minlength=14**2)
    assert stats.chisquare(pairs).pvalue > 0.001
    whole = ours.draw(positions(100, seed=5, epoch=2), size)
    some = ours.draw(Position((AUGMENTATION, 5, 2), torch.tensor([70, 3, 99])), size)
    for all_of_them, few in zip(whole, some, strict=True):
        assert torch.equal(all_of_them[[70, 3, 99]], few)
    for other in (ours.draw(positions(100, 6, 2), size), ours.draw(positions(100, 5, 3), size)):
        assert (whole.operation == other.operation).float().mean() < 0.2
    assert (TrivialAugment().draw(positions(100, 5, 2), size).operation[:, 0] == whole.operation[:, 0]).sum() < 25


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: RandAugment(N=0), "N=0: must be at least 1; without operations, leave randaugment out of augment"),
        (lambda: RandAugment(M=31), r"M=31: must lie in \[0, 30\], as bins=31"),
        (lambda: RandAugment(M=-1), r"M=-1: must lie in \[0, 30\]"),
        (lambda: RandAugment(bins=1), "bins=1: must be at least 2"),
        (lambda: TrivialAugment(bins=1), "bins=1: must be at least 2"),
    ],
)
def test_settings_out_of_range_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.gpu
@pytest.mark.parametrize("ours", [RandAugment(2, 9), TrivialAugment()])
def test_a_gpu_gives_the_same_bits_without_being_waited_for(ours):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images = pictures(40, 3, 32, 32)
    draws = ours.draw(positions(len(images)), (32, 32))
    there, moved = images.cuda(), to_device(draws, torch.device("cuda"), ours.host)
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = ours.apply(there, moved)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(made.cpu(), ours.apply(images, draws))
