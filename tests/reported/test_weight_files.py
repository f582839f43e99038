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
    torch.save(averaged, desk.folder / "averaged")
    torch.save(checkpoint, desk.folder / "last.tar")
    torch.save({"model": state, "ema": {f"_orig_mod.{k}": v for k, v in state.items()}}, desk.folder / "both.pt")
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.1)}, desk.folder / "args.pth")

    said = desk.runs("train", "baseline", "-m", *MLP, "student.weights=averaged,last.tar")
    assert "starts from weights whose names all begin with module.module. in averaged: that is left out" in said
    assert "starts from net.weights in last.tar" in said
    cells = desk.problems("train", "baseline", "-m", *MLP[:3], "student.weights=both.pt,args.pth,both.pt:best")
    both, args, best = cells
    assert "both.pt: holds 2 state dicts that fit, model, ema; type both.pt:model or both.pt:ema" in both
    assert "args.pth: refused, it holds argparse.Namespace besides tensors" in args and "\x1b" not in args
    assert "both.pt has no entry best with a state dict; it has model, ema" in best
    teacher = ["teacher=mlp", "teacher.hidden=[5]", "teacher.from=both.pt:ema"]
    said = desk.runs("distill", *teacher, *MLP)
    assert "teacher: mlp.Mlp starts from weights whose names all begin with _orig_mod. in both.pt" in said
