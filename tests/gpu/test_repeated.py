"""A GPU repeats a training bit for bit, and goes on with one bit for bit."""

import pytest
import torch

from kdrun.training import devices
from tests.losses.given import NAMES, node
from tests.training import steps

pytestmark = pytest.mark.gpu
EPOCHS = 2


def trained(name, gpu, *, interrupted=False):
    """Train two epochs, perhaps handing everything over to new learners after the first, and give all states."""
    unit = steps.unit(name, gpu)
    strong = unit.learners[0].objective.needs_strong
    batches = steps.batches(gpu, strong=node("mlkd")["strong"] if strong else None)
    teaching = steps.teaching(batches, gpu)
    devices.set_float32("fp32")
    for epoch in range(EPOCHS):
        for number, batch in enumerate(batches.epoch(epoch)):
            unit.step(batch, teaching.teacher_outputs(batch, number, logits_only=False, strong=strong))
        for learner in unit.learners:
            learner.end_epoch(None, None, steps.IMAGES, 0.0)
        if interrupted and epoch == 0:
            state = unit.state()
            unit = steps.unit(name, gpu)
            unit.restore(state)
    return [tensor.cpu() for learner in unit.learners for tensor in learner.model.state_dict().values()]


@pytest.mark.parametrize("name", NAMES)
def test_every_method_repeats_and_resumes_bit_for_bit(name, gpu):
    first = trained(name, gpu)
    for again in (trained(name, gpu), trained(name, gpu, interrupted=True)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
