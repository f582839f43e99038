"""The learning rate against torch's own schedulers."""

import pytest
import torch
from torch.optim import lr_scheduler as torchs

from kdrun.config import Recipe
from kdrun.training.schedule import factor

EPOCHS, STEPS = 12, 7


def ours(**settings):
    recipe = vars(Recipe(epochs=EPOCHS, **settings))
    return [factor(recipe, step, STEPS) for step in range(EPOCHS * STEPS)]


def theirs(make, per_epoch=False):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    seen = []
    for _ in range(EPOCHS):
        for _ in range(STEPS):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if not per_epoch:
                scheduler.step()
        if per_epoch:
            scheduler.step()
    return seen


def test_multistep_is_torchs():
    expected = theirs(lambda o: torchs.MultiStepLR(o, [3, 8], gamma=0.2), per_epoch=True)
    assert ours(schedule="multistep", milestones=[3, 8], gamma=0.2) == pytest.approx(expected)


def test_cosine_is_torchs():
    expected = theirs(lambda o: torchs.CosineAnnealingLR(o, EPOCHS * STEPS))
    assert ours(schedule="cosine") == pytest.approx(expected)


def test_one_cycle_is_torchs():
    expected = theirs(lambda o: torchs.OneCycleLR(o, 1.0, total_steps=EPOCHS * STEPS + 1, cycle_momentum=False))
    total = EPOCHS * STEPS + 1  # torch refuses the step after its last; one more step makes them comparable
    recipe = vars(Recipe(epochs=total, schedule="onecycle"))
    assert [factor(recipe, step, 1) for step in range(total - 1)] == pytest.approx(expected)


def test_a_warm_up_rises_linearly_and_the_schedule_follows_it():
    seen = ours(schedule="cosine", warmup_epochs=2)
    assert seen[: 2 * STEPS] == pytest.approx([(i + 1) / (2 * STEPS) for i in range(2 * STEPS)])
    assert seen[2 * STEPS] == 1.0
    assert all(a > b for a, b in zip(seen[2 * STEPS :], seen[2 * STEPS + 1 :], strict=False))


def test_constant_stays():
    assert set(ours(schedule="constant")) == {1.0}
