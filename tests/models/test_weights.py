"""Weight files: prefixes, entries, and what a refused one asks for."""

from __future__ import annotations

import argparse
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kdrun import models
from kdrun.models.weight_files import is_file_name, read_weights, weights_digest
from kdrun.models.weights import load_weights


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def prefixed(prefix):
    return {prefix + name: value + 1 for name, value in network().state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "model.model.net."])
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "tar", ""])
def test_prefixes_that_all_names_share_come_off_and_are_said(tmp_path, prefix, suffix):
    file = tmp_path / f"weights.{suffix}".rstrip(".")
    (save_file if suffix in ("safetensors", "") else torch.save)(prefixed(prefix), file)
    assert is_file_name(str(file))
    filled = network()
    message = load_weights(filled, file)
    assert all(torch.equal(value, prefixed("")[name]) for name, value in filled.state_dict().items())
    assert len(message) == bool(prefix) and all(prefix in sentence for sentence in message)


def test_a_prefix_that_some_names_lack_does_not_come_off(tmp_path):
    torch.save({**prefixed("module."), "extra": torch.zeros(1)}, tmp_path / "mixed.pt")
    with pytest.raises(ValueError, match=r"missing: 0\.weight.*unexpected: module\.0\.weight"):
        load_weights(network(), tmp_path / "mixed.pt")


@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "net", "model", "ema", "teacher"])
def test_a_single_state_dict_is_found_under_any_name(tmp_path, entry):
    torch.save({entry: prefixed(""), "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "checkpoint.tar")
    assert load_weights(network(), tmp_path / "checkpoint.tar") == (f"starts from {entry} in checkpoint.tar",)


def test_of_several_that_fit_one_is_typed_behind_a_colon(tmp_path):
    file = tmp_path / "a:b.pt"  # a colon of its own
    other = {name: value * 3 for name, value in prefixed("").items()}
    torch.save({"model": prefixed(""), "ema": {"module": other}, "head": {"fc": torch.zeros(2)}}, file)
    with pytest.raises(
        ValueError, match=r"contains 2 state dicts that fit, model, ema\.module; type \S+b\.pt:model or"
    ):
        load_weights(network(), file)
    filled = network()
    assert load_weights(filled, f"{file}:ema.module") == ()
    assert torch.equal(filled.state_dict()["0.weight"], other["0.weight"])
    assert is_file_name(f"{file}:ema.module") and is_file_name("absent.pt:ema") and not is_file_name("IMAGENET1K_V1")
    digests = {weights_digest(name) for name in (file, f"{file}:model", f"{file}:ema.module")}
    assert len(digests) == 3
    with pytest.raises(ValueError, match=r":head does not fit Sequential: missing: 0\.weight"):
        load_weights(network(), f"{file}:head")


class Odd:
    """A type that torch does not know."""


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("write", ["torch", "pickle"])
def test_a_refused_pickle_names_the_type_that_it_asks_for(tmp_path, write, protocol):
    for content, name in ((Odd(), f"{__name__}.Odd"), (argparse.Namespace(lr=1), "argparse.Namespace")):
        file = tmp_path / "asks.pt"
        if write == "torch":
            torch.save({"state_dict": prefixed(""), "args": content}, file, pickle_protocol=protocol)
        else:
            file.write_bytes(pickle.dumps({"weights": {}, "args": content}, protocol=protocol))
        with pytest.raises(ValueError, match=f"refused: it contains {name} besides tensors") as refusal:
            read_weights(file)
        assert "\x1b" not in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_spec_of_a_plain_file_keeps_its_digest(tmp_path):
    import hashlib

    (tmp_path / "start.pt").write_bytes(b"one")
    inner = hashlib.sha256(b"one").hexdigest()
    expected = hashlib.sha256(inner.encode()).hexdigest()
    assert models.digest("resnet.CifarResNet", {"blocks": [1], "weights": str(tmp_path / "start.pt")}) == expected
