"""A network that writes into its input corrupts the batch that the others of its cohort see."""

import json

import torch
from safetensors.torch import load_file

SHORT = ["recipe.epochs=1", "recipe.warmup_epochs=0", "teacher.recipe.epochs=2", "seeds=1", "device=cpu"]

OWN = """
import numpy as np
from torch import nn

class Copying(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(64, num_classes)
    def forward(self, x):
        return self.fc((-x).flatten(1))

class InPlace(Copying):
    def forward(self, x):
        return self.fc(x.neg_().flatten(1))

class ByNumPy(Copying):  # which moves no version counter
    def forward(self, x):
        np.negative(x.numpy(), out=x.numpy())
        return self.fc(x.flatten(1))
"""


def test_students_and_baselines_are_those_of_a_network_that_leaves_its_input_alone(desk):
    desk.write("own.py", OWN)
    networks = ["teacher=external", "teacher.target=own:ByNumPy", "student=external"]
    output = desk.runs("distill", "-m", *networks, "student.target=own:InPlace,own:Copying", *SHORT)  # in one cohort
    assert "teacher: own:ByNumPy changes its input images in place: it gets a copy of each batch" in output
    assert "student: own:InPlace changes its input images in place: it gets a copy of each batch" in output
    assert "student: own:Copying" not in output
    for role in ("baseline", "student"):
        answers = {
            json.loads((folder / "spec.json").read_text())["model"]["arguments"]["target"]: load_file(
                folder / "logits.safetensors"
            )["test"]
            for folder in desk.folder.glob(f"outputs/store/{role}-*")
        }
        assert sorted(answers) == ["own:Copying", "own:InPlace"]
        assert torch.equal(*answers.values()), role
