"""Networks by import name: what is taken, and what is refused uncalled."""

from __future__ import annotations

import sys

import pytest
import torch
import torchvision.models

from kdrun import models
from kdrun.losses.layers import vector

DATA = {"num_classes": 4, "in_channels": 3, "image_size": (16, 16), "seed": 0}

SOURCE = """
from collections import namedtuple
from dataclasses import dataclass
import torch
from torch import nn
from kdrun.models import Outputs

class Net(nn.Module):
    def __init__(self, num_classes, in_channels, width=8):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3)
        self.act = nn.ReLU()
        self.fc = nn.Linear(width, num_classes)
    def forward(self, x):
        return self.fc(self.act(self.conv(x)).mean((2, 3)))

class Full(Net):
    def forward(self, x):
        map = self.conv(x)
        return Outputs(self.fc(map.mean((2, 3))), {"stage1": map.relu()}, {"stage1": map}, map.mean((2, 3)))

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 7)
    def forward(self, x):
        return self.fc(x.mean((2, 3)))

class Pair(Fixed):
    def forward(self, x):
        return self.fc(x.mean((2, 3))), None

class Auxiliary(Net):
    def forward(self, x):
        return (super().forward(x), None) if self.training else super().forward(x)

Entries = namedtuple("Entries", ["features", "logits"])

class Named(Net):
    def forward(self, x):
        return Entries(x, super().forward(x))

@dataclass
class Said:
    loss: object
    logits: object

class Data(Net):
    def forward(self, x):
        return Said(None, super().forward(x))

class Listed(Net):
    def forward(self, x):
        return [super().forward(x), x]

class Wrapped(Net):
    def forward(self, x):
        return {"hidden": x, "logits": super().forward(x)}

class LogSoft(Net):
    def forward(self, x):
        return super().forward(x).log_softmax(1)

class Soft(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)

class Squeeze(Net):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.fc = nn.Conv2d(8, num_classes, 1)
        self.unused = nn.Linear(3, 3)
    def forward(self, x):
        return self.fc(self.act(self.conv(x))).relu().mean((2, 3))

class HeadFirst(Net):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.aside = nn.Linear(num_classes, 5)
    def forward(self, x):
        z = super().forward(x)
        self.said = self.aside(z)
        return z

class Prototypes(Net):
    def forward(self, x):
        return -torch.cdist(self.conv(x).mean((2, 3)), self.fc.weight)

def factory():
    raise SystemExit("called")
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's own in the current folder."""
    (tmp_path / "mine_for_the_test.py").write_text(SOURCE)
    (tmp_path / "broken_for_the_test.py").write_text("import surely_not_installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine_for_the_test", None)


def build(target, **changes):
    return models.build("external.External", target=target, **(DATA | changes))


def test_a_class_from_the_current_folder_gets_the_datas_classes_and_channels(mine):
    network = build("mine_for_the_test:Net", arguments={"width": 12}, features=["act"], seed=3)
    outputs = network(torch.randn(2, 3, 16, 16))
    assert outputs.logits.shape == (2, 4) and outputs.features["stage1"].shape == (2, 12, 14, 14)
    torch.testing.assert_close(outputs.embedding, outputs.features["stage1"].mean((2, 3)))
    same = build("mine_for_the_test:Net", arguments={"width": 12}, seed=3, embedding="conv")
    assert torch.equal(network.network.fc.weight, same.network.fc.weight)
    assert same(torch.randn(2, 3, 16, 16)).embedding.shape == (2, 12)


def test_hooks_are_gone_after_each_forward_pass(mine):
    network = build("mine_for_the_test:Net", features=["act"])
    network(torch.randn(2, 3, 16, 16))
    assert not network.network.act._forward_hooks and not network.network.fc._forward_pre_hooks


def test_outputs_of_ones_own_pass_through(mine):
    outputs = build("mine_for_the_test:Full")(torch.randn(2, 3, 16, 16))
    assert torch.equal(outputs.features["stage1"], outputs.preactivations["stage1"].relu())


def test_a_torchvision_factory_is_taken(mine):
    network = build("torchvision.models:resnet18", image_size=(32, 32)).eval()
    theirs = torchvision.models.resnet18(num_classes=4).eval()
    theirs.load_state_dict(network.network.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(images).logits, theirs(images))


@pytest.mark.parametrize(
    "target",
    ["os:system", "logging:os.system", "torch.hub:load", "builtins:exec", "mine_for_the_test:factory"],
)
def test_anything_but_a_network_is_refused_uncalled(mine, target):
    with pytest.raises(ValueError, match="was not called"):
        build(target, arguments={"command": "touch called"})
    assert not (mine / "called").exists()


@pytest.mark.parametrize(
    "target, answer",
    [
        ("mine_for_the_test", "package.module:Name"),
        ("mine_for_the_test:", "package.module:Name"),
        ("../mine:Net", "package.module:Name"),
        ("no_such_module:Net", "no module no_such_module"),
        ("broken_for_the_test:Net", "imports surely_not_installed"),
        ("mine_for_the_test:Nett", "its networks: Net"),
    ],
)
def test_a_target_that_cannot_be_found_says_why(mine, target, answer):
    with pytest.raises(ValueError, match=answer):
        build(target)


def test_wrong_logits_are_refused_with_both_shapes(mine):
    with pytest.raises(ValueError, match=r"shape \(1, 7\).*\(1, 4\) is needed"):
        build("mine_for_the_test:Fixed")
    with pytest.raises(ValueError, match=r"returns a tuple, in which .* tensor of shape \(1, 4\)"):
        build("mine_for_the_test:Pair")


def test_arguments_and_modules_that_do_not_exist_are_named(mine):
    with pytest.raises(ValueError, match=r"takes no widht; it takes: .*width"):
        build("mine_for_the_test:Net", arguments={"widht": 3})
    with pytest.raises(ValueError, match="no module called fcc; near: fc"):
        build("mine_for_the_test:Net", features=["fcc"])
    with pytest.raises(ValueError, match="3-channel images of 2×2"):
        build("mine_for_the_test:Net", image_size=(2, 2))


def test_the_digest_follows_the_source_file(mine):
    first = models.digest("external.External", {"target": "mine_for_the_test:Net"})
    file = mine / "mine_for_the_test.py"
    file.write_text(file.read_text() + "# changed\n")
    assert models.digest("external.External", {"target": "mine_for_the_test:Net"}) != first


@pytest.mark.parametrize(
    "name, message",
    [
        ("Auxiliary", "in training mode returns a tuple: its first entry is used as the logits, the rest is ignored"),
        ("Named", "returns a Entries: its entry called logits is used as the logits, the rest is ignored"),
        ("Data", "returns a Said: its entry called logits is used as the logits, the rest is ignored"),
        ("Listed", "returns a list: its first entry is used as the logits, the rest is ignored"),
        ("Wrapped", "returns a dict: its entry called logits is used as the logits, the rest is ignored"),
    ],
)
def test_the_logits_among_several_outputs_are_those_of_the_network_that_returns_them_alone(mine, name, message):
    network, plain = (build(f"mine_for_the_test:{which}") for which in (name, "Net"))
    assert network.remarks == (message,)
    images = torch.randn(2, 3, 16, 16)
    for training in (True, False):
        outputs, expected = (one.train(training)(images) for one in (network, plain))
        assert torch.equal(outputs.logits, expected.logits) and torch.equal(outputs.embedding, expected.embedding)


def test_probabilities_are_refused_and_their_logarithms_taken(mine):
    with pytest.raises(ValueError, match=r"returns probabilities in eval mode .* remove its last softmax"):
        build("mine_for_the_test:Soft")
    network = build("mine_for_the_test:LogSoft")
    assert network.remarks == () and network.head == "fc"


def test_the_head_is_the_layer_that_gives_the_logits_wherever_it_is_registered(mine):
    images = torch.randn(2, 3, 16, 16)
    for name in ("Squeeze", "HeadFirst"):
        network = build(f"mine_for_the_test:{name}")
        assert network.remarks == ("has fc as its head: the input of the head is the embedding",)
        expected = network.network.act(network.network.conv(images)).mean((2, 3))
        torch.testing.assert_close(network(images).embedding, expected)


def test_without_a_head_there_is_no_embedding_until_one_is_named(mine):
    network = build("mine_for_the_test:Prototypes")
    assert "its embedding is unknown" in network.remarks[0]
    outputs = network(torch.randn(2, 3, 16, 16))
    assert outputs.embedding.shape == (2, 0)
    with pytest.raises(ValueError, match=r"student's network has no known embedding.* student\.embedding=MODULE"):
        vector("student", outputs)
    named = build("mine_for_the_test:Prototypes", embedding="conv")
    assert named.remarks == () and named(torch.randn(2, 3, 16, 16)).embedding.shape == (2, 8)
