"""Names, seeds, weights, and what cannot fit."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from kdrun import models
from kdrun.models.builder import FROM_THE_DATA, resolve

FILES = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_keys_of_a_yaml_are_the_arguments_of_its_constructor(file):
    node = yaml.safe_load(file.read_text())
    accepted = set(inspect.signature(resolve(node["use"])).parameters) - set(FROM_THE_DATA)
    assert set(node) - {"use", "weights"} == accepted - {"weights"}


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_generator_as_it_was(build):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build("resnet8").state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = build("resnet8").state_dict(), build("resnet8", seed=1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_building_leaves_the_network_in_training_mode_with_fresh_statistics(build):
    network = build("resnet8")
    assert all(module.training for module in network.modules())
    assert network.bn1.num_batches_tracked == 0 and torch.equal(network.bn1.running_mean, torch.zeros(16))


def test_unknown_names_are_answered_with_what_exists(build):
    with pytest.raises(ValueError, match=r"use: nothing\.CifarResNet must be file\.Class"):
        build("resnet8", use="nothing.CifarResNet")
    with pytest.raises(ValueError, match="offers CifarResNet"):
        build("resnet8", use="resnet.BasicBlock")
    with pytest.raises(ValueError, match=r"no argument dept .*did you mean depth"):
        build("wrn_16_1", dept=3)
    with pytest.raises(ValueError, match=r"must be file\.Class"):
        build("resnet8", use="..store.Store")


@pytest.mark.parametrize("name", ["vgg8", "fashion_cnn"])
def test_images_that_are_too_small_are_refused_with_both_sizes(build, name):
    with pytest.raises(ValueError, match=r"at least (8×8|4×4), not 3×32"):
        build(name, image_size=(3, 32))


def test_weights_of_another_architecture_are_refused_with_the_first_names(build, tmp_path):
    save_file(build("resnet8").state_dict(), tmp_path / "resnet8.safetensors")
    with pytest.raises(ValueError) as refusal:
        models.load_weights(build("resnet20"), tmp_path / "resnet8.safetensors")
    assert "missing: layer1.1.conv1.weight" in str(refusal.value)
    with pytest.raises(ValueError, match=r"unexpected: layer1\.1\.bn1.* and 69 more"):
        save_file(build("resnet20").state_dict(), tmp_path / "resnet20.safetensors")
        models.load_weights(build("resnet8"), tmp_path / "resnet20.safetensors")
    with pytest.raises(ValueError, match=r"fc.weight \(100, 64\) in the file, \(10, 64\) in the model"):
        build("resnet8", num_classes=10, weights=str(tmp_path / "resnet8.safetensors"))


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_a_torch_file_of_tensors_is_a_starting_point_like_a_safetensors_file(build, tmp_path, wrap):
    source = build("resnet8", seed=5).state_dict()
    torch.save(source if wrap is None else {wrap: source, "epoch": 240}, tmp_path / "start.pth")
    loaded = build("resnet8", weights=str(tmp_path / "start.pth")).state_dict()
    assert all(torch.equal(source[name], loaded[name]) for name in source)


class Attack:
    def __init__(self, target: Path):
        self.target = str(target)

    def __reduce__(self):
        return (open, (self.target, "w"))


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin"])
def test_a_malicious_pickle_is_refused_and_nothing_runs(build, tmp_path, suffix):
    torch.save({"state_dict": Attack(tmp_path / "touched")}, tmp_path / f"evil.{suffix}")
    (tmp_path / f"plain.{suffix}").write_bytes(pickle.dumps(Attack(tmp_path / "touched"), protocol=2))
    for file in (f"evil.{suffix}", f"plain.{suffix}"):
        with pytest.raises(ValueError, match=file):
            build("resnet8", weights=str(tmp_path / file))
    assert not (tmp_path / "touched").exists()


def test_a_truncated_file_and_a_missing_one_are_named(build, tmp_path):
    torch.save(build("resnet8").state_dict(), tmp_path / "whole.pt")
    save_file(build("resnet8").state_dict(), tmp_path / "whole.safetensors")
    for name in ("whole.pt", "whole.safetensors"):
        data = (tmp_path / name).read_bytes()
        for length in (0, 1, len(data) // 2, len(data) - 1):
            (tmp_path / f"cut_{name}").write_bytes(data[:length])
            with pytest.raises(ValueError, match=f"cut_{name}"):
                models.load_weights(build("resnet8"), tmp_path / f"cut_{name}")
    with pytest.raises(ValueError, match="there is no file"):
        models.load_weights(build("resnet8"), tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="has no published weights"):
        build("resnet8", weights="DEFAULT")


def test_the_digest_covers_what_is_not_ours(tmp_path):
    arguments = {"blocks": [1, 1, 1], "weights": None}
    assert models.digest("resnet.CifarResNet", arguments) is None
    file = tmp_path / "start.pt"
    file.write_bytes(b"one")
    one = models.digest("resnet.CifarResNet", arguments | {"weights": str(file)})
    file.write_bytes(b"two")
    two = models.digest("resnet.CifarResNet", arguments | {"weights": str(file)})
    assert one != two and len(one) == len(two) == 64


def test_unfilled_networks_have_the_same_shapes_and_draw_nothing(build):
    state = torch.get_rng_state()
    with models.Unfilled():
        bare = build("vgg8", seed=None).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert {k: v.shape for k, v in bare.items()} == {k: v.shape for k, v in build("vgg8").state_dict().items()}
