"""Constructors and first forward passes that raise, and train-time outputs that differ: a sentence and exit 2."""

OWN = """
import sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.fc = nn.Linear(64, num_classes)
    def forward(self, x):
        return self.fc(x.flatten(1))

class Missing(Net):
    def __init__(self, num_classes, in_channels, width):
        super().__init__(num_classes, in_channels)

class Asserting(Net):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        assert in_channels == 3, "colour images only"

class Leaving(Net):
    def __init__(self, num_classes):
        sys.exit("no licence")

class Attribute(Net):
    def forward(self, x):
        return self.head(x)

class Key(Net):
    def forward(self, x):
        return {}["logits"]

class Bare(nn.Module):
    def forward(self, x):
        return x.to(next(self.parameters()).device)

class Still(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
    def forward(self, x):
        return x.flatten(1)[:, :self.num_classes]

class Targets(Net):
    def forward(self, x, targets=None):
        if self.training:
            raise ValueError("In training mode, targets should be passed")
        return super().forward(x)

class Renewing(Net):
    def forward(self, x):
        self.fc = nn.Linear(64, 10)
        return self.fc(x.flatten(1))
"""

WORDS = {
    "Missing": "cannot be made: TypeError: Missing.__init__() missing 1 required positional argument: 'width'",
    "Asserting": "cannot be made: colour images only (own.py, line 20)",
    "Leaving": "cannot be made: SystemExit: no licence",
    "Attribute": "images of 8×8: AttributeError: 'Attribute' object has no attribute 'head' (own.py, line 28)",
    "Key": "cannot take 1-channel images of 8×8: KeyError: 'logits' (own.py, line 32)",
    "Bare": "cannot take 1-channel images of 8×8: StopIteration (own.py, line 36)",
    "Still": "has no weights to train: all are frozen, or there are none",
    "Targets": "8×8 in training mode: In training mode, targets should be passed (own.py, line 48)",
    "Renewing": "makes new weights in every forward pass (network.fc.weight, network.fc.bias)",
}


def test_each_is_told_in_the_networks_own_words_before_any_cell_trains(desk):
    desk.write("own.py", OWN)
    targets = ",".join(f"own:{name}" for name in WORDS)
    problems = desk.problems("train", "baseline", "-m", "student=external", f"student.target={targets}", "device=cpu")
    assert len(problems) == len(WORDS)
    for (name, words), problem in zip(WORDS.items(), problems, strict=True):
        assert words in problem and f"own:{name} " in problem, problem


def test_a_vision_transformer_names_the_input_size_that_its_patches_divide(desk):
    arch = ["student=torchvision", "student.arch=vit_b_16", "device=cpu", "plan=true"]
    said = desk.refuses("train", "baseline", *arch)
    assert "Input shape indivisible by patch size!" in said and "type input_size=16, a multiple of its patches'" in said
