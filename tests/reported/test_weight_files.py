"""Weight files as training scripts write them: wrapped, prefixed, several in one, of any name, or with code in them."""

import argparse

import torch
import yaml
from torch import nn
from torch.optim.swa_utils import AveragedModel

from kdrun import models
from tests.models.conftest import CONF

MLP = ["student=mlp", "student.hidden=[5]", "device=cpu", "plan=true", "seeds=1"]


def saved_network():
    """The network that these commands start, as a script of somebody's would have it."""
    settings = yaml.safe_load((CONF / "mlp.yaml").read_text()) | {"hidden": [5]}
    return models.build(**settings, num_classes=10, in_channels=1, image_size=(8, 8), seed=7)


def test_what_scripts_write_is_taken_and_said_and_what_is_ambiguous_is_listed(desk):
    network = saved_network()
    state = network.state_dict()
    averaged = AveragedModel(nn.DataParallel(network)).state_dict()  # n_averaged, module.module.…
    assert "n_averaged" in averaged and all(name.startswith(("n_", "module.module.")) for name in averaged)
    momentum = {"state": {i: {"momentum_buffer": value} for i, value in enumerate(state.values())}, "param_groups": []}
    checkpoint = {"epoch": 3, "optimizer": momentum, "net": {"weights": state}, "best": 0.5}
    checkpoint["ema"] = {f"_orig_mod.{name}": value for name, value in state.items()}
    torch.save(averaged, desk.folder / "averaged")
    torch.save(checkpoint, desk.folder / "last.tar")
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.1)}, desk.folder / "args.pth")

    output = desk.runs("distill", *MLP, "student.weights=averaged", "teacher=mlp", "teacher.hidden=[5]",
                     "teacher.from=last.tar:ema", "teacher.trust=true")  # fmt: skip
    assert "starts from the weights in averaged, without the prefix module.module. of their names" in output
    assert (
        "teacher: mlp.Mlp starts from the weights in last.tar, without the prefix _orig_mod. of their names" in output
    )
    weights = "student.weights=last.tar,args.pth,last.tar:best"
    several, args, best = desk.problems("train", "baseline", "-m", *MLP[:3], weights)
    assert (
        "last.tar: contains 2 state dicts that fit, net.weights, ema; type last.tar:net.weights or last.tar" in several
    )
    assert "args.pth: refused: it contains argparse.Namespace besides tensors" in args and "\x1b" not in args
    assert "last.tar has no entry best with a state dict; it has net.weights, ema" in best
