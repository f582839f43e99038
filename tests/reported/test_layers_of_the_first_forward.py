"""Layers that are made in the first forward pass were drawn by whatever state the process had."""

import importlib
import json
import random

import numpy as np
import torch
from safetensors.torch import load_file

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
"""


def test_each_seed_gives_the_weights_that_plain_torch_gives_with_it(desk, monkeypatch):
    desk.write("late_for_the_test.py", OWN)
    own = ["student=external", "student.target=late_for_the_test:Late"]
    still = ["recipe.epochs=1", "recipe.warmup_epochs=0", "recipe.lr=1e-30", "recipe.weight_decay=0"]
    desk.runs("train", "baseline", *own, *still, "seeds=2", "device=cpu")
    monkeypatch.syspath_prepend(str(desk.folder))
    made = importlib.import_module("late_for_the_test")
    for file in desk.folder.glob("outputs/store/baseline-*/model.safetensors"):
        seed = json.loads((file.parent / "spec.json").read_text())["seed"]
        for draw in (torch.manual_seed, random.seed, np.random.seed):
            draw(seed)
        network = made.Late(10)
        network(torch.zeros(1, 1, 8, 8))
        weights = load_file(file)
        assert set(weights) == {"network.conv.weight", "network.conv.bias", "network.fc.weight", "network.fc.bias"}
        assert all(torch.equal(value, weights[f"network.{name}"]) for name, value in network.state_dict().items()), seed
