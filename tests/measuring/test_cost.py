"""Cost: published and hand-computed operations, a clock that the test turns, memory counted tensor by tensor."""

import time

import pytest
import torch
import yaml
from torch import nn

from kdrun import config, models
from kdrun.measuring import cost
from kdrun.models.base import Outputs
from kdrun.spec import Spec


def spec(use="mlp.Mlp", arguments=None, channels=1, size=8, precision="fp32", **model):
    described = {"use": use, "arguments": arguments or {"hidden": [16], "dropout": 0.0}, "num_classes": 10,
                 "in_channels": channels, "image_size": [size, size], "digest": None}  # fmt: skip
    mean = [0.5] * channels
    return Spec(
        data={"mean": mean, "std": mean}, model=described | model, objective={}, recipe={}, seed=0, precision=precision
    )


def named(name, classes, channels=3, size=32):
    """A network of conf/model as `kdrun models` lists it."""
    node = yaml.safe_load((config.CONF / "model" / f"{name}.yaml").read_text())
    use = node.pop("use")
    with models.Unfilled():
        return models.build(use, num_classes=classes, in_channels=channels, image_size=(size, size), **node)


class Wrapped(nn.Module):
    """A module that returns `Outputs` as kdrun's networks do."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return Outputs(self.net(x), {}, {}, x)


def test_a_perceptrons_operations_are_its_weights():
    result = cost.operations_of(spec(arguments={"hidden": [16], "dropout": 0.0}))
    assert result == {"macs": 64 * 16 + 16 * 10, "flops": 2 * (64 * 16 + 16 * 10)}


def test_a_convolution_counts_every_place_and_groups_share_the_work():
    net = Wrapped(nn.Sequential(nn.Conv2d(6, 12, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=12)))
    image = torch.zeros(1, 6, 16, 16)
    assert cost.operations(net, image)["macs"] == 8 * 8 * 12 * 6 * 9 + 6 * 6 * 12 * 1 * 9


@pytest.mark.parametrize("heads", [2, 4])
def test_attention_is_counted_although_torch_would_fuse_it(heads):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, heads, batch_first=True)

        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)
            return Outputs(self.attention(tokens, tokens, tokens, need_weights=False)[0], {}, {}, x)

    tokens, width = 25, 16
    projections, products = 4 * tokens * width * width, 2 * tokens * tokens * width
    net = Attention().requires_grad_(False)
    with torch.no_grad():
        assert cost.operations(net, torch.zeros(1, 16, 5, 5))["macs"] == projections + products


@pytest.mark.parametrize(
    ("name", "published"),
    [  # MACs on 32×32 colour images, as reimplementations of He et al. and Zagoruyko & Komodakis (2016) count them
        ("resnet20", 41e6),
        ("resnet56", 126e6),
        ("resnet110", 255e6),
        ("wrn_40_2", 329e6),
    ],
)
def test_published_networks_have_their_published_operations(name, published):
    result = cost.operations(named(name, classes=10), torch.zeros(1, 3, 32, 32))
    assert result["macs"] == pytest.approx(published, rel=0.03)


def test_counting_leaves_mode_statistics_and_weights_as_they_were():
    shapes = {"num_classes": 10, "in_channels": 3, "image_size": (32, 32)}
    net = models.build("cnn.PlainCnn", **shapes, widths=[8, 8], convolutions=2, dropout=0.5, seed=0).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    cost.operations(net, torch.randn(1, 3, 32, 32))
    assert net.training and all(part.training for part in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_what_cannot_be_built_here_is_refused():
    with pytest.raises(ValueError, match="nowhere"):
        cost.operations_of(spec("external.External", {"target": "nowhere.at:All", "arguments": {}}))


def test_what_cost_depends_on_is_architecture_and_precision_alone():
    known = cost.shape(spec())
    assert cost.shape(spec(init=3)) == known and cost.shape(spec(digest="abc")) == known
    assert cost.shape(spec(precision="bf16")) != known and cost.shape(spec(size=9)) != known
    assert cost.shape(spec(arguments={"hidden": [17], "dropout": 0.0})) != known
    external = {"target": "mine:Net", "arguments": {}}
    one, other = (cost.shape(spec("external.External", external, digest=digest)) for digest in ("a", "b"))
    assert one != other  # another source may be another network


class Clock:
    """A clock that calls turn on, in the place of the machine's."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def call(self, *seconds):
        """Make a call that takes so long: the given times in turn, then the last one for ever."""
        left = list(seconds)

        def run():
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_latency_is_median_and_95th_percentile_without_the_warm_up(monkeypatch):
    clock = Clock(monkeypatch)
    result = cost.latency(clock.call(9, 9, 9, 0.002), warmup=3, runs=40)
    assert result == {"median_ms": pytest.approx(2), "p95_ms": pytest.approx(2), "runs": 40, "warmup": 3}


def test_percentiles_are_numpys(monkeypatch):
    clock = Clock(monkeypatch)
    times = [t / 1000 for t in range(1, 12)]  # each turn: one unmeasured call, then one that counts
    result = cost.latency(clock.call(*(t for pair in zip(times, times, strict=True) for t in pair)), warmup=0, runs=10)
    assert result["median_ms"] == pytest.approx(5.5) and result["p95_ms"] == pytest.approx(9.55)


def test_networks_take_turns_each_after_a_call_that_does_not_count():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    cost.latencies(calls, warmup=2, runs=20)
    assert order == ["a"] * 2 + ["b"] * 2 + (["a"] * 3 + ["b"] * 3) * 10


def test_a_slow_network_ends_after_its_time_but_not_before_ten_runs(monkeypatch):
    clock = Clock(monkeypatch)
    calls = {"slow": clock.call(5.0), "medium": clock.call(0.1), "fast": clock.call(0.001)}
    result = cost.latencies(calls, warmup=0, runs=50, seconds=2.0)
    assert [result[name]["runs"] for name in calls] == [10, 20, 50]


def test_timing_can_be_stopped_between_turns():
    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        cost.latencies({"a": lambda: None}, warmup=0, runs=10, check=stop)


def test_memory_of_a_perceptron_is_weights_images_and_the_two_largest_neighbours():
    net = nn.Sequential(
        nn.Linear(10, 100, bias=False), nn.ReLU(), nn.Linear(100, 50, bias=False), nn.Linear(50, 5, bias=False)
    )
    images = torch.zeros(8, 10)
    with torch.no_grad():
        result = cost.peak_memory(net, lambda: net(images), images)
    weights = 10 * 100 + 100 * 50 + 50 * 5
    # ReLU's input and output are alive at once: no layer after it needs more
    assert result == 4 * (weights + 8 * 10 + 8 * 100 + 8 * 100)


def test_what_works_in_place_and_what_is_a_view_takes_no_further_memory():
    images = torch.zeros(4, 8)
    with torch.no_grad():
        made = cost.peak_memory(nn.Identity(), lambda: (images + 1).relu_().view(8, 4).t()[1:], images)
        none = cost.peak_memory(nn.Identity(), lambda: images.view(8, 4)[1:], images)
    assert (made, none) == (4 * 32 + 4 * 32, 4 * 32)


def test_memory_that_is_freed_is_used_again():
    images = torch.zeros(1000)

    def call():
        x = images
        for _ in range(20):
            x = x + 1
        return x

    with torch.no_grad():
        assert cost.peak_memory(nn.Identity(), call, images) == 4 * 1000 * 3  # the images, and two at once


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_and_time_of_a_gpu_are_those_of_its_own_allocator_and_work():
    device = torch.device("cuda")
    net = nn.Linear(1024, 4096, bias=False).to(device)
    images = torch.zeros(1024, 1024, device=device)
    with torch.no_grad():
        result = cost.peak_memory(net, lambda: net(images), images)
        least = 4 * (1024 * 4096 + 1024 * 1024 + 1024 * 4096)
        assert least <= result < 3 * least
        timed = cost.latency(cost.ending(lambda: net(images), device), warmup=5, runs=20)
    assert timed["median_ms"] > 0.01  # 8.6 GFLOP: launching alone would be shorter
