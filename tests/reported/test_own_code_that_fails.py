"""Networks that fail, or that kdrun cannot train as they are: each with a sentence and exit 2."""

import json

OWN = """
import sys
import numpy as np
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

class Lost(Net):
    def forward(self, x):
        return (x, super().forward(x)) if self.training else super().forward(x)

class Soft(Net):
    def forward(self, x):
        z = super().forward(x)
        return z if self.training else z.softmax(1)

class Elsewhere(Net):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        drawn = np.random.default_rng().normal(size=(num_classes, 64)).astype("float32")
        self.fc.weight = nn.Parameter(torch.from_numpy(drawn))

class Renewing(Net):
    def forward(self, x):
        self.fc = nn.Linear(64, 10)
        return self.fc(x.flatten(1))
"""

WORDS = {
    "Missing": "cannot be built: TypeError: Missing.__init__() missing 1 required positional argument: 'width'",
    "Asserting": "cannot be built: colour images only (own.py, line 21)",
    "Leaving": "cannot be built: SystemExit: no licence",
    "Attribute": "images of 8×8: AttributeError: 'Attribute' object has no attribute 'head' (own.py, line 29)",
    "Key": "cannot take 1-channel images of 8×8: KeyError: 'logits' (own.py, line 33)",
    "Bare": "cannot take 1-channel images of 8×8: StopIteration (own.py, line 37)",
    "Still": "has no weights to train: all are frozen, or there are none",
    "Targets": "8×8 in training mode: In training mode, targets should be passed (own.py, line 49)",
    "Lost": "returns a tuple, in which neither an entry called logits nor the first one is a tensor of shape (2, 10)",
    "Soft": "returns probabilities in eval mode (each row sums to 1) instead of logits",
    "Elsewhere": "two networks made with seed=0 start from different weights (network.fc.weight)",
    "Renewing": "creates new weights in every forward pass (network.fc.weight, network.fc.bias)",
}


def test_each_is_told_in_the_networks_own_words_before_any_cell_trains(desk):
    desk.write("own.py", OWN)
    targets = ",".join(f"own:{name}" for name in WORDS)
    problems = desk.problems("train", "baseline", "-m", "student=external", f"student.target={targets}", "device=cpu")
    assert len(problems) == len(WORDS)
    for (name, words), problem in zip(WORDS.items(), problems, strict=True):
        assert words in problem and f"own:{name}" in problem.partition("(in the cell")[0], problem


def test_code_that_calls_sys_exit_never_ends_a_command_as_if_all_were_well(desk):
    desk.write("leaving.py", "import sys\nsys.exit(0)\n")
    ending = OWN + "\nclass Ending(Net):\n    passes = 0\n    def forward(self, x):\n        Ending.passes += 1\n"
    desk.write("ending.py", ending + "        return sys.exit(0) if Ending.passes > 20 else super().forward(x)\n")
    words = ["train", "baseline", "student=external", "seeds=1", "recipe.epochs=2", "device=cpu"]
    assert "importing leaving fails with SystemExit: 0" in desk.refuses(*words, "student.target=leaving:Net")
    done = desk.type(*words, "student.target=ending:Ending")
    assert done.returncode == 3 and "SystemExit: 0" in done.stdout + done.stderr
    (run,) = (desk.folder / "outputs" / "runs" / "train_baseline").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
