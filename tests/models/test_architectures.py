"""The networks against the published table, and on any data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.resnet import Bottleneck, ResNet

from kdrun import models

RESNET = {"stem": (16, 32, 32), "stage1": (16, 32, 32), "stage2": (32, 16, 16), "stage3": (64, 8, 8)}
RESNET_X4 = {"stem": (32, 32, 32), "stage1": (64, 32, 32), "stage2": (128, 16, 16), "stage3": (256, 8, 8)}
WIDTH_1 = {"stage1": (16, 32, 32), "stage2": (32, 16, 16), "stage3": (64, 8, 8)}
WIDTH_2 = {"stage1": (32, 32, 32), "stage2": (64, 16, 16), "stage3": (128, 8, 8)}
VGG = {
    "stage1": (64, 32, 32),
    "stage2": (128, 16, 16),
    "stage3": (256, 8, 8),
    "stage4": (512, 4, 4),
    "stage5": (512, 4, 4),
}
RESNET50 = {
    "stem": (64, 32, 32),
    "stage1": (256, 32, 32),
    "stage2": (512, 16, 16),
    "stage3": (1024, 8, 8),
    "stage4": (2048, 4, 4),
}
MOBILE = {"stage1": (12, 16, 16), "stage2": (16, 8, 8), "stage3": (48, 4, 4), "stage4": (160, 2, 2)}
SHUFFLE_1 = {"stage1": (240, 16, 16), "stage2": (480, 8, 8), "stage3": (960, 4, 4)}
SHUFFLE_2 = {"stage1": (116, 16, 16), "stage2": (232, 8, 8), "stage3": (464, 4, 4)}

# As the distillation papers print or publish them: 100 classes, 3×32×32.
PUBLISHED = {
    "resnet8": (83_892, RESNET, 64),
    "resnet14": (181_108, RESNET, 64),
    "resnet20": (278_324, RESNET, 64),
    "resnet32": (472_756, RESNET, 64),
    "resnet44": (667_188, RESNET, 64),
    "resnet56": (861_620, RESNET, 64),
    "resnet110": (1_736_564, RESNET, 64),
    "resnet8x4": (1_233_540, RESNET_X4, 256),
    "resnet32x4": (7_433_860, RESNET_X4, 256),
    "wrn_16_1": (180_916, WIDTH_1, 64),
    "wrn_16_2": (703_284, WIDTH_2, 128),
    "wrn_40_1": (569_780, WIDTH_1, 64),
    "wrn_40_2": (2_255_156, WIDTH_2, 128),
    "vgg8": (3_965_028, VGG, 512),
    "vgg11": (9_277_284, VGG, 512),
    "vgg13": (9_462_180, VGG, 512),
    "vgg16": (14_774_436, VGG, 512),
    "vgg19": (20_086_692, VGG, 512),
    "resnet50": (23_705_252, RESNET50, 2048),
    "mobilenetv2": (812_836, MOBILE, 1280),
    "shufflenetv1": (949_258, SHUFFLE_1, 960),
    "shufflenetv2": (1_355_528, SHUFFLE_2, 1024),
}
# One of each family, the cheapest.
FAMILIES = [
    "resnet8",
    "wrn_16_1",
    "vgg8",
    "mobilenetv2",
    "shufflenetv1",
    "shufflenetv2",
    "fashion_cnn",
    "mlp",
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_stages_are_the_published_ones(build, name):
    parameters, stages, embedding = PUBLISHED[name]
    with torch.device("meta"):
        result = models.describe(build(name), 3, (32, 32))
    assert (result.parameters, result.stages, result.embedding) == (parameters, stages, embedding)
    assert list(result.stages) == list(stages)


def test_the_fashion_models_keep_to_the_budgets_of_the_experiment_they_repeat(build):
    data = {"num_classes": 10, "in_channels": 1, "image_size": (28, 28)}
    with torch.device("meta"):
        student, teacher = (
            models.describe(build(name, **data), 1, (28, 28)) for name in ("fashion_cnn", "fashion_resnet")
        )
    assert 170_000 <= student.parameters <= 175_000
    assert 1_250_000 <= teacher.parameters <= 1_350_000


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (33, 47), (64, 64)])
@pytest.mark.parametrize("channels, classes", [(1, 2), (4, 7)])
@pytest.mark.parametrize("name", FAMILIES)
def test_any_classes_channels_and_sizes_from_8_by_8_up_will_do(build, name, channels, classes, size):
    with torch.device("meta"):
        network = build(name, num_classes=classes, in_channels=channels, image_size=size)
        outputs = network(torch.empty(3, channels, *size))
    assert outputs.logits.shape == (3, classes)
    assert list(outputs.features) == list(outputs.preactivations)
    for name, map in outputs.features.items():
        assert map.shape == outputs.preactivations[name].shape and min(map.shape) >= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_backward_reaches_every_parameter(build, name):
    network = build(name, num_classes=5, image_size=(16, 16))
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    outputs = network(images.to(memory_format=torch.channels_last))
    F.cross_entropy(outputs.logits, torch.tensor([0, 1, 2, 3])).backward()
    dead = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("name", ["resnet8", "vgg8", "shufflenetv1", "shufflenetv2", "fashion_cnn", "mlp"])
def test_features_are_the_preactivations_after_the_relu(build, name):
    network = build(name).eval()
    outputs = network(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    for stage, preactivation in outputs.preactivations.items():
        assert preactivation.min() < 0
        assert torch.equal(outputs.features[stage], preactivation.relu())


def test_features_of_a_wide_resnet_are_sums_and_preactivations_the_norms_that_follow(build):
    network = build("wrn_16_2").eval()
    outputs = network(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    norms = {
        "stage1": network.block2.layer[0].bn1,
        "stage2": network.block3.layer[0].bn1,
        "stage3": network.bn1,
    }
    for stage, norm in norms.items():
        assert outputs.features[stage].min() < 0
        torch.testing.assert_close(norm(outputs.features[stage]), outputs.preactivations[stage])
    torch.testing.assert_close(outputs.embedding, outputs.preactivations["stage3"].relu().mean((2, 3)))


def test_a_wide_resnet_updates_each_running_statistic_once_per_batch(build):
    network = build("wrn_16_1")
    network(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    counts = {int(buffer) for name, buffer in network.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {1}


def test_resnet50_computes_what_torchvisions_does_with_the_same_weights_and_a_small_stem(build):
    ours = build("resnet50", num_classes=10).eval()
    theirs = ResNet(Bottleneck, [3, 4, 6, 3], num_classes=10).eval()
    theirs.conv1, theirs.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, theirs(images))


@pytest.mark.parametrize("groups, order", [(2, [0, 3, 1, 4, 2, 5]), (3, [0, 2, 4, 1, 3, 5]), (1, [0, 1, 2, 3, 4, 5])])
def test_the_shuffle_interleaves_groups_as_torchs_own(groups, order):
    from kdrun.models.shufflenet import shuffled

    x = torch.arange(6.0)[None, :, None, None].expand(2, 6, 3, 4)
    assert shuffled(x, groups)[0, :, 0, 0].tolist() == order
    assert torch.equal(shuffled(x, groups), torch.channel_shuffle(x, groups))


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8"])
def test_the_names_of_weights_are_those_of_published_checkpoints(build, name):
    expected = {
        "resnet8": {
            "conv1.weight",
            "bn1.running_mean",
            "layer2.0.downsample.0.weight",
            "layer3.0.bn2.bias",
            "fc.bias",
        },
        "wrn_16_1": {
            "conv1.weight",
            "block2.layer.0.convShortcut.weight",
            "block3.layer.1.bn2.bias",
            "bn1.bias",
        },
        "vgg8": {"block0.0.bias", "block4.1.running_var", "classifier.weight"},
    }[name]
    with torch.device("meta"):
        assert expected <= set(build(name).state_dict())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_exports_with_any_batch_size(build, name):
    network = build(name, num_classes=5).eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},)).module()
    with torch.no_grad():
        expected, result = network(images[:3]), program(images[:3])
    torch.testing.assert_close(result.logits, expected.logits)
    assert list(result.features) == list(expected.features)


def test_convolutions_start_with_hes_variance(build):
    weight = build("resnet8x4").layer3[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)


def test_dropout_is_active_in_training_only(build):
    network = build("mlp", dropout=0.5)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(network(images).logits, network(images).logits)
    network.eval()
    assert torch.equal(network(images).logits, network(images).logits)


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("resnet8", {"blocks": [1, 1]}),
        ("resnet8", {"widths": [16, 0, 64]}),
        ("wrn_16_1", {"depth": 17}),
        ("wrn_16_1", {"dropout": 1.0}),
        ("vgg8", {"convolutions": [1, 1]}),
        ("mobilenetv2", {"width": 0.0}),
        ("shufflenetv1", {"groups": 7}),
        ("shufflenetv2", {"widths": [116, 233, 464]}),
        ("fashion_cnn", {"dropout": -0.1}),
        ("mlp", {"hidden": [0]}),
    ],
)
def test_arguments_out_of_range_are_named(build, name, wrong):
    ((argument, _),) = wrong.items()
    with pytest.raises(ValueError, match=argument):
        build(name, **wrong)


def test_every_yaml_begins_with_its_description():
    files = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
    assert len(files) >= 28
    for file in files:
        first = file.read_text().split("\n")[0]
        assert first.startswith("# ") and 20 < len(first) < 110, file.name
