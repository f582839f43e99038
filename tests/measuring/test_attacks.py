"""FGSM and PGD: exact where the loss is known in closed form, and true to their bounds where it is not."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from kdrun.measuring.attacks import ascent, fgsm, pgd

SHAPE = (1, 6, 6)


def pixels(count=8, seed=0, low=0.2, high=0.8):
    """Images far enough from 0 and 1 that small steps are never cut off."""
    return low + (high - low) * torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def labels(count=8, classes=3):
    return torch.arange(count) % classes


class Small(nn.Module):
    """A network with everything that could go wrong: normalisation, BatchNorm, ReLU in place."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(288, 3)
            )
            self.net[1].running_mean.normal_(0, 0.3)

    def forward(self, x):
        return self.net((x - 0.5) / 0.25)


@pytest.fixture
def small():
    return Small().eval()


def loss(classify, x, y):
    return functional.cross_entropy(classify(x), y, reduction="none")


def attack(classify, x, y, epsilon, steps=10, size=None, seed=0, **more):
    return pgd(classify, x, y, epsilon, steps=steps, size=size, seed=seed, indices=torch.arange(len(x)), **more)


def test_on_two_classes_of_a_linear_model_fgsm_moves_the_margin_by_exactly_epsilon_times_the_norm():
    """Goodfellow et al., section 5: the loss is softplus(-margin), and the margin falls by ε·‖w‖₁."""
    weights = torch.randn(36, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def classify(x):
        score = x.flatten(1) @ weights
        return torch.stack([-score / 2, score / 2], dim=1)

    x, y = pixels().double(), labels(classes=2)
    result = fgsm(classify, x, y, 4)
    margin = (2 * y - 1) * (x.flatten(1) @ weights)
    expected = functional.softplus(-(margin - 4 / 255 * weights.abs().sum()))
    assert torch.allclose(loss(classify, result, y), expected, atol=1e-12)


def test_the_sign_is_that_of_finite_differences(small):
    small = small.double()
    x, y = pixels(2).double(), labels(2)
    sign = ascent(small, x, y)
    for place in [(0, 0, 1, 2), (1, 0, 5, 5), (0, 0, 3, 0)]:
        nudge = torch.zeros_like(x)
        nudge[place] = 1e-6
        with torch.no_grad():
            slope = (loss(small, x + nudge, y) - loss(small, x - nudge, y)).sum()
        assert sign[place] == slope.sign()


def test_every_image_is_attacked_for_itself(small):
    x, y = pixels(), labels()
    together = fgsm(small, x, y, 4)
    alone = torch.cat([fgsm(small, x[i : i + 1], y[i : i + 1], 4) for i in range(len(x))])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("low, high", [(0.2, 0.8), (0.0, 1.0)])
def test_attacked_images_stay_within_epsilon_and_within_the_box(small, low, high):
    x, y = pixels(low=low, high=high), labels()
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    for epsilon in (1, 8, 64):
        for result in (fgsm(small, x, y, epsilon), attack(small, x, y, epsilon)):
            assert (result - x).abs().max() <= epsilon / 255 + 1e-7
            assert result.min() >= 0 and result.max() <= 1
    assert torch.allclose((fgsm(small, x, y, 8) - x).abs().max(), torch.tensor(8 / 255))


def test_more_steps_hurt_more_than_one_and_one_more_than_noise(small):
    x, y = pixels(64), labels(64)
    noise = (x + 8 / 255 * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) - 1)).clamp(0, 1)
    with torch.no_grad():
        clean, drawn, once, often = (
            loss(small, result, y).mean().item()
            for result in (x, noise, fgsm(small, x, y, 8), attack(small, x, y, 8, steps=20))
        )
    assert abs(drawn - clean) < 0.1 * (once - clean)
    assert often >= once > clean + 0.05


def test_on_a_linear_model_both_find_the_corner_that_is_worst():
    weights = torch.randn(36, 2, generator=torch.Generator().manual_seed(1))

    def classify(x):
        return x.flatten(1) @ weights

    x, y = pixels(), labels(classes=2)
    away = (weights[:, 1] - weights[:, 0]).sign().view(SHAPE) * torch.where(y == 0, 1, -1)[:, None, None, None]
    expected = x + 8 / 255 * away
    assert torch.allclose(fgsm(classify, x, y, 8), expected, atol=1e-6)
    assert torch.allclose(attack(classify, x, y, 8, steps=5), expected, atol=1e-6)


def test_small_steps_cannot_reach_the_edge_and_the_default_size_can():
    def classify(x):
        return torch.stack([x.flatten(1).sum(1), -x.flatten(1).sum(1)], dim=1)

    x, y = pixels(), torch.zeros(8, dtype=torch.int64)
    crept = attack(classify, x, y, 8, steps=3, size=0.5)
    assert (crept - x).min() >= -8 / 255 - 1e-7 and (crept - x).mean().abs() < 2 / 255 + 1e-3
    assert torch.allclose(attack(classify, x, y, 8, steps=3), x - 8 / 255, atol=1e-6)


def test_the_start_is_drawn_by_seed_and_place_alone(small):
    def flat(x):  # without a gradient nothing moves: what is left is the start
        return 0 * x.flatten(1)[:, :3]

    x, y = pixels(), labels()
    start = attack(flat, x, y, 8) - x
    assert start.std() > 0.3 * 8 / 255 and start.mean().abs() < 1 / 255
    assert torch.equal(attack(flat, x, y, 8) - x, start)
    assert not torch.equal(attack(flat, x, y, 8, seed=1) - x, start)
    some = pgd(flat, x[3:5], y[3:5], 8, steps=1, size=None, seed=0, indices=torch.tensor([3, 4]))
    assert torch.equal(some - x[3:5], start[3:5])


def test_weights_statistics_and_gradients_are_left_as_they_were(small):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    attack(small, pixels(), labels(), 8)
    fgsm(small, pixels(), labels(), 8)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert all(p.grad is None for p in small.parameters())


def test_a_network_whose_weights_want_no_gradient_is_attacked_as_well(small):
    x, y = pixels(), labels()
    expected = fgsm(small, x, y, 4)
    with torch.no_grad():
        assert torch.equal(fgsm(small.requires_grad_(False), x, y, 4), expected)
    assert (expected != x).all()  # the gradient reaches every pixel


def test_each_step_can_be_stopped(small):
    class Stopped(Exception):
        pass

    seen = []

    def check():
        seen.append(1)
        if len(seen) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        attack(small, pixels(), labels(), 8, steps=10, check=check)
    assert len(seen) == 3
