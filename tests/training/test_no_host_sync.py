"""Nothing in a training step waits for the device: seen on tensors without data, where there is no GPU to ask.

torch's "meta" device refuses to give a value; what else waits on a GPU is looked for among the operations that
a step runs. tests/gpu asks a GPU itself.
"""

from unittest import mock

import pytest
import torch
import torch.optim.optimizer as torch_optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdrun.training.average import Average
from tests.losses.given import NAMES, node
from tests.training import steps

META = torch.device("meta")
CHECKED_ON_A_GPU = ("multinomial", "linalg_eigh", "linalg_svd", "linalg_inv", "linalg_cholesky", "unique", "nonzero")
every_method = pytest.mark.parametrize("name", NAMES)


class Waits(TorchDispatchMode):
    """Gathers the operations that would wait for a GPU: copies between it and the CPU, and those known to ask it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.ran = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = str(func), kwargs or {}
        if name.startswith("aten._fused_"):  # has no meta kernel; on a GPU it waits for nothing
            given, out = tree_leaves((args, kwargs)), None
        else:
            out = func(*args, **kwargs)
            given = tree_leaves((args, kwargs, out))
        devices = {x.device.type for x in given if isinstance(x, torch.Tensor)}
        if "meta" in devices:
            self.ran += 1
            if len(devices) > 1 or any(known in name for known in CHECKED_ON_A_GPU):
                self.waits.append(name)
        return out


@pytest.fixture
def fused():
    """Let fused optimisers take tensors without data."""
    there = [*torch_optimizer._get_fused_kernels_supported_devices(), "meta"]
    with mock.patch.object(torch_optimizer, "_get_fused_kernels_supported_devices", lambda: there):
        yield


def waits(unit, *, cached: bool = False) -> list[str]:
    """The operations of the second and later steps of an epoch that would wait; the first one allocates."""
    strong = unit.learners[0].objective.needs_strong
    erasing = {"erasing": node("mlkd")["strong"]["erasing"]}  # RandAugment sends its operations, and waits for nothing
    batches = steps.batches(META, crop_padding=0 if cached else 1, strong=erasing if strong else None)
    teaching = steps.teaching(batches, META, cached=cached)
    with Waits() as run:
        teaching.begin(0, 0)
        for number, batch in enumerate(batches.epoch(0)):
            if number == 1:
                run.waits, run.ran = [], 0
            unit.step(batch, teaching.teacher_outputs(batch, number, logits_only=cached, strong=strong))
    assert run.ran > 100
    return run.waits


@every_method
def test_no_step_of_any_method_waits_for_the_device(name, fused):
    assert waits(steps.unit(name, META)) == []


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_no_optimiser_waits_for_the_device(optimizer, fused):
    assert waits(steps.unit("kd", META, optimizer=optimizer)) == []


def test_no_table_of_a_teachers_logits_waits_for_the_device(fused):
    assert waits(steps.unit("kd", META), cached=True) == []


def test_this_test_finds_a_copy_and_a_question():
    for wait in (lambda x: x + torch.ones(2).to(META), lambda x: x[torch.tensor([0])], lambda x: x.multinomial(1)):
        with Waits() as run:
            wait(torch.zeros(2, device=META))
        assert run.waits


def test_the_average_is_torchs_own_bit_for_bit_without_its_wait():
    ours, theirs = (steps.network([4, 8], seed=0, dropout=0.1) for _ in range(2))
    average, decays = Average(ours, 0.3), [1 / 10, 2 / 11, 3 / 12, 0.3, 0.3]  # (1 + t) / (10 + t), at most 0.3

    def growing(kept, seen, count):
        get_ema_multi_avg_fn(decays[int(count) - 1])(kept, seen, count)

    reference = AveragedModel(theirs, multi_avg_fn=growing, use_buffers=True)
    reference.n_averaged.add_(1)  # torch would copy the first step's weights
    for step in range(5):
        for network in (ours, theirs):
            network(torch.full((4, 1, 8, 8), float(step)))  # moves the buffers
            with torch.no_grad():
                for p in network.parameters():
                    p.add_(0.1 * step)
        average.update_parameters(ours)
        reference.update_parameters(theirs)
    assert average.state_dict().keys() == reference.state_dict().keys()
    for key, value in reference.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(average.state_dict()[key], value), key
    for (key, own), value in zip(average.module.state_dict().items(), ours.state_dict().values(), strict=True):
        assert own.is_floating_point() or torch.equal(own, value), key  # BatchNorm's count of batches
    average = Average(ours.to(META), 0.9)
    with Waits() as run:
        for _ in range(2):
            average.update_parameters(ours)
    assert not run.waits
