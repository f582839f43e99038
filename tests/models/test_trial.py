"""What the first forward passes of foreign networks show, make and leave as it was."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import torch
import yaml

from kdrun import models

from .conftest import CONF

SOURCE = """
import random
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 6, 3)
        self.bn = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, num_classes)
        self.register_buffer("center", torch.zeros(6))
        self.calls = 0
    def forward(self, x):
        self.calls += 1
        x = self.bn(self.conv(x)).mean((2, 3))
        if self.training:
            self.center = 0.9 * self.center + x.detach().mean(0)
        return self.fc(self.drop(x) - self.center)

class Negating(Net):
    def forward(self, x):
        return super().forward(x.neg_())

class Copying(Net):
    def forward(self, x):
        return super().forward(-x)

class Clamping(Net):
    def forward(self, x):
        return super().forward(x.clamp_(-5, 5))

class Eval(Net):
    def forward(self, x):
        return super().forward(x if self.training else x.mul_(2))

class Data(Net):
    def forward(self, x):
        x.data.relu_()
        return super().forward(x)

class Shape(Net):
    def forward(self, x):
        return super().forward(x.unsqueeze_(0)[0])

class Leaf(Net):
    def forward(self, x):
        return super().forward(x.requires_grad_())

class Reading(Net):
    def forward(self, x):
        return super().forward(x.view_as(x).relu())

class Lazy(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.bn, self.fc = nn.LazyConv2d(6, 3), nn.LazyBatchNorm2d(), nn.LazyLinear(num_classes)
    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).flatten(1))

class Late(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes, self.start = num_classes, random.random() + np.random.rand()
    def forward(self, x):
        if not hasattr(self, "fc"):
            self.fc = nn.Linear(x[0].numel(), self.num_classes)
            nn.init.constant_(self.fc.bias, self.start)
        return self.fc(x.flatten(1))

class Unreached(Net):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.spare = nn.LazyLinear(3)

class Overwriting(Net):
    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).relu_().mean((2, 3)))
"""
WRITERS = ["Negating", "Clamping", "Eval", "Data", "Shape", "Leaf"]


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """A module of the user's own in the current folder."""
    (tmp_path / "tried_for_the_test.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("tried_for_the_test", None)


def build(name, **changes):
    data = {"num_classes": 4, "in_channels": 3, "image_size": (8, 8), "seed": 3}
    return models.build("external.External", target=f"tried_for_the_test:{name}", **(data | changes))


def bytes_of(tensor):
    return tensor.contiguous().numpy().tobytes()


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_whoever_writes_into_its_input_gets_a_copy_in_every_call(name, blank):
    network = build(name, blank=blank)
    assert network.copies_input and "in place" in network.remarks[0]
    for training in (True, False):
        images = torch.randn(2, 3, 8, 8)
        before = bytes_of(images)
        for call in (network.train(training), network.forward):
            call(images)
            assert bytes_of(images) == before and images.shape == (2, 3, 8, 8) and not images.requires_grad


def test_whoever_only_reads_gets_none():
    assert not build("Net").copies_input and not build("Reading").copies_input and not build("Reading").remarks


def test_copies_hold_under_attack_compiled_and_traced():
    changing, reading = (build(name).eval() for name in ("Negating", "Copying"))
    images, seen = torch.randn(2, 3, 8, 8), []
    for network in (changing, reading):
        leaf = images.clone().requires_grad_()
        seen.append(torch.autograd.grad(network(leaf).logits.square().sum(), leaf)[0])
    assert torch.equal(*seen) and seen[0].abs().sum() > 0
    expected = reading(images).logits
    before = bytes_of(images)
    traced = torch.export.export(changing, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)).module()
    changing.compile(backend="eager", dynamic=False)
    for call in (changing, traced):
        torch.testing.assert_close(call(images).logits, expected)
        assert bytes_of(images) == before


@pytest.mark.parametrize("name", ["Lazy", "Late"])
def test_layers_of_the_first_forward_are_what_plain_torch_makes_after_the_seed(name):
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    network = build(name, seed=5)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    plain = getattr(sys.modules["tried_for_the_test"], name)(4)
    plain(torch.zeros(1, 3, 8, 8)) if name == "Late" else plain.eval()(torch.zeros(1, 3, 8, 8))
    expected, made = plain.state_dict(), network.network.state_dict()
    assert expected.keys() == made.keys() and all(torch.equal(expected[key], made[key]) for key in made)
    assert len(list(network.parameters())) == len(list(plain.parameters())) > 0
    again = build(name, blank=True, seed=None)
    again.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(again.eval()(images).logits, network.eval()(images).logits)


def test_a_layer_that_no_forward_pass_reaches_is_named():
    with pytest.raises(
        ValueError, match=r"these lazy layers get no shape, .*: network\.spare\.weight, network\.spare\.bias"
    ):
        build("Unreached")


def test_statistics_counters_and_modes_are_as_the_constructor_left_them():
    network = build("Net")
    torch.manual_seed(3)
    plain = sys.modules["tried_for_the_test"].Net(4, 3)
    made = network.network.state_dict()
    assert all(torch.equal(value, made[name]) for name, value in plain.state_dict().items())
    assert network.network.calls == 0 and all(module.training for module in network.modules())


def test_a_feature_that_a_later_layer_changes_is_said():
    network = build("Overwriting", features=["bn", "conv"])
    assert network.remarks == ("changes the output of bn in place in a later layer: losses compare the changed "
                               "output",)  # fmt: skip
    outputs = network(torch.randn(2, 3, 8, 8))
    assert outputs.features["stage1"].min() == 0 > outputs.features["stage2"].min()


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2", "mlp"])
def test_no_family_of_kdruns_own_writes_into_its_input(name):
    settings = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    network = models.build(**settings, num_classes=4, in_channels=3, image_size=(16, 16), seed=0)
    assert not network.copies_input and not network.remarks
