"""No step of any method waits for the GPU: torch raises where one does (tests/training asks the same without one)."""

import pytest
import torch

from kdrun.training import devices
from tests.losses.given import NAMES, node
from tests.training import steps

pytestmark = pytest.mark.gpu


def step_through(unit, precision, gpu, *, cached=False):
    """Go through an epoch; after the first step, which allocates, waiting for the GPU is an error."""
    strong = unit.learners[0].objective.needs_strong
    batches = steps.batches(gpu, crop_padding=0 if cached else 1, strong=node("mlkd")["strong"] if strong else None)
    teaching = steps.teaching(batches, gpu, precision, cached=cached)
    devices.set_float32(precision)
    try:
        teaching.begin(0, 0)
        for number, batch in enumerate(batches.epoch(0)):
            unit.step(batch, teaching.teacher_outputs(batch, number, logits_only=cached, strong=strong))
            if number == 0:
                torch.cuda.synchronize(gpu)
                torch.cuda.set_sync_debug_mode("error")
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_no_step_of_any_method_waits_for_the_gpu(name, precision, gpu):
    unit = steps.unit(name, gpu, precision)
    step_through(unit, precision, gpu)
    for learner in unit.learners:
        assert learner.losses.isfinite().all()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_no_optimiser_waits_for_the_gpu(optimizer, gpu):
    step_through(steps.unit("kd", gpu, optimizer=optimizer), "fp32", gpu)


def test_no_table_of_a_teachers_logits_waits_for_the_gpu(gpu):
    step_through(steps.unit("kd", gpu), "fp32", gpu, cached=True)


def test_torch_raises_where_something_waits(gpu):
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(2, device=gpu).sum().item()
