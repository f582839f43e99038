"""Layers that are made in the first forward pass were drawn by whatever state the process had."""

import safetensors.torch
import torch

OWN = """
import random
import numpy as np
import torch
from torch import nn

class Late(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.LazyConv2d(2, 3)
        self.num_classes, self.fc = num_classes, None
    def forward(self, x):
        x = self.conv(x).flatten(1)
        if self.fc is None:
            self.fc = nn.Linear(x.shape[1], self.num_classes)
            with torch.no_grad():
                self.fc.bias.fill_(random.random() + np.random.rand())
        return self.fc(x)

class Elsewhere(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        drawn = np.random.default_rng().normal(size=(64, num_classes)).astype("float32")
        self.weight = nn.Parameter(torch.from_numpy(drawn))
    def forward(self, x):
        return x.flatten(1) @ self.weight
"""


def test_one_seed_gives_one_network_whatever_else_the_command_builds(desk):
    desk.write("own.py", OWN)
    own = ["student=external", "student.target=own:Late", "recipe.epochs=1", "recipe.warmup_epochs=0", "device=cpu"]
    desk.runs("train", "baseline", *own, "seed=1", "seeds=1", "outputs=alone")
    desk.runs("distill", *own, "seeds=2", "teacher.recipe.epochs=1", "outputs=beside")
    networks = {
        place: [
            safetensors.torch.load_file(file)
            for file in sorted(desk.folder.glob(f"{place}/store/baseline-*/model.safetensors"))
        ]
        for place in ("alone", "beside")
    }
    (alone,) = networks["alone"]
    assert set(alone) == {"network.conv.weight", "network.conv.bias", "network.fc.weight", "network.fc.bias"}
    same = [all(torch.equal(alone[name], other[name]) for name in alone) for other in networks["beside"]]
    assert sorted(same) == [False, True]  # of seeds 0 and 1
    said = desk.refuses("train", "baseline", "student=external", "student.target=own:Elsewhere", "plan=true")
    assert "two networks made with seed=0 start from different weights (network.weight)" in said
