"""torchvision's networks against torchvision itself."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torchvision.models
from torchvision.transforms.v2 import functional as transforms

from kdrun import models

DATA = {
    "num_classes": 10,
    "in_channels": 3,
    "image_size": (64, 64),
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.3, 0.25),
}


def build(arch="resnet18", **changes):
    return models.build("torchvision_models.Torchvision", arch=arch, **({"seed": 0} | DATA | changes))


def images(channels=3, side=64):
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def published_resnet18(tmp_path, monkeypatch):
    """resnet18's weights where torchvision looks for them, with random content and a matching checksum."""
    from torchvision.models import ResNet18_Weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), folder / "new.pth")
    checksum = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    (folder / "new.pth").rename(folder / f"resnet18-{checksum}.pth")
    weights = ResNet18_Weights.IMAGENET1K_V1
    changed = type(weights.value)(f"https://localhost/resnet18-{checksum}.pth", weights.transforms, weights.meta)
    monkeypatch.setattr(weights, "_value_", changed)
    return theirs


def test_logits_equal_torchvisions_own_with_the_same_weights():
    ours, theirs = build().eval(), torchvision.models.resnet18(num_classes=10).eval()
    theirs.load_state_dict(ours.network.state_dict())
    with torch.no_grad():
        assert torch.equal(ours(images()).logits, theirs(images()))


def test_resnets_show_four_stages_before_and_after_the_relu():
    outputs = build().eval()(images())
    assert {name: tuple(map.shape[1:]) for name, map in outputs.features.items()} == {
        "stage1": (64, 16, 16),
        "stage2": (128, 8, 8),
        "stage3": (256, 4, 4),
        "stage4": (512, 2, 2),
    }
    for stage, map in outputs.features.items():
        assert outputs.preactivations[stage].min() < 0
        assert torch.equal(outputs.preactivations[stage].relu(), map)
    torch.testing.assert_close(outputs.embedding, outputs.features["stage4"].mean((2, 3)))


def test_published_weights_see_images_as_their_own_transforms_prepare_them(published_resnet18):
    ours = build(weights="DEFAULT", num_classes=1000).eval()
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(DATA[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    resized = transforms.resize(pixels, [224, 224], antialias=True)
    expected = published_resnet18(transforms.normalize(resized, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    torch.testing.assert_close(ours((pixels - mean) / std).logits, expected, rtol=1e-4, atol=1e-4)


def test_published_weights_take_grey_images_and_other_classes(published_resnet18):
    grey = {"in_channels": 1, "mean": (0.3,), "std": (0.2,), "num_classes": 7, "input_size": 32}
    ours = build(weights="IMAGENET1K_V1", **grey).eval()
    assert ours(images(1)).logits.shape == (2, 7)
    assert torch.equal(ours.network.conv1.weight, published_resnet18.conv1.weight)
    repeated = transforms.resize(images(1), [32, 32], antialias=True).expand(2, 3, 32, 32) * 0.2 + 0.3
    standard = transforms.normalize(repeated, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    published_resnet18.fc = ours.network.fc
    torch.testing.assert_close(ours(images(1)).logits, published_resnet18(standard), rtol=1e-4, atol=1e-4)
    again = build(weights="IMAGENET1K_V1", **grey)
    assert torch.equal(again.network.fc.weight, ours.network.fc.weight)


def test_a_tampered_weight_file_is_refused(published_resnet18, tmp_path):
    (file,) = (tmp_path / "hub" / "checkpoints").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="checksum differs"):
        build(weights="DEFAULT")


def test_without_network_the_error_says_where_the_file_belongs(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"put it at .*hub/checkpoints/resnet18-f37072fd\.pth"):
        build(weights="DEFAULT")


def test_unknown_names_list_near_ones():
    with pytest.raises(ValueError, match=r"near: .*resnet18"):
        build("resnet81")
    with pytest.raises(ValueError, match="publishes for resnet18: IMAGENET1K_V1, DEFAULT"):
        build(weights="IMAGENET")
    with pytest.raises(ValueError, match=r"near: .*layer1"):
        build(features=["layer11"])
    with pytest.raises(ValueError, match=r"stage1 .* has shape \(1, 10\); maps"):
        build(features=["fc"])


def test_images_too_small_for_the_network_are_refused_before_training():
    with pytest.raises(ValueError, match=r"3-channel images of 8×8.*type input_size=63, which .*smallest"):
        build("alexnet", image_size=(8, 8))
    assert build("alexnet", image_size=(8, 8), input_size=64)(images(side=8)).logits.shape == (2, 10)


def test_chosen_modules_become_stages_of_any_network():
    network = build("mobilenet_v3_small", features=["features.1", "features.4"], in_channels=2, mean=(0, 0), std=(1, 1))
    outputs = network(images(2))
    assert {name: tuple(map.shape[1:]) for name, map in outputs.features.items()} == {
        "stage1": (16, 16, 16),
        "stage2": (40, 4, 4),
    }
    assert outputs.preactivations == {} and outputs.embedding.shape == (2, 1024)


def test_a_file_of_torchvisions_own_names_loads(tmp_path):
    theirs = torchvision.models.resnet18(num_classes=10)
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours = build(weights=str(tmp_path / "resnet18.pth"))
    assert torch.equal(ours.network.fc.weight, theirs.fc.weight)


def test_the_digest_names_the_published_weights():
    digest = models.digest("torchvision_models.Torchvision", {"arch": "resnet50", "weights": "IMAGENET1K_V1"})
    other = models.digest("torchvision_models.Torchvision", {"arch": "resnet50", "weights": "DEFAULT"})
    same = models.digest("torchvision_models.Torchvision", {"arch": "resnet50", "weights": "IMAGENET1K_V2"})
    assert digest != other == same


def test_a_vision_transformer_names_the_input_size_that_its_patches_divide():
    with pytest.raises(ValueError, match=r"images of 8×8: Input shape indivisible by patch size!; type input_size=16,"):
        build("vit_b_16", image_size=(8, 8))
    with pytest.raises(
        ValueError, match=r"images of 33×20: .*; type input_size=64, a multiple of its patches' 32 pixels"
    ):
        build("vit_b_32", image_size=(33, 20))
    with models.Unfilled():
        assert build("vit_b_32", image_size=(33, 20), input_size=64).size == (64, 64)
