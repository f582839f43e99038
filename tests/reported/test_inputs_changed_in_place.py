"""A network that writes into its input corrupts the batch that the others of its cohort see."""

import safetensors.torch
import torch

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

class Sometimes(Copying):  # not for the images that it is tried on, which have larger pixels
    def forward(self, x):
        return self.fc((x.neg_() if x.abs().max() < 4 else -x).flatten(1))
"""


def answers(desk, teacher, student):
    """Train all three of a cohort; give what was said, and the test logits of baseline and student."""
    networks = [
        "teacher=external",
        f"teacher.target=own:{teacher}",
        "student=external",
        f"student.target=own:{student}",
    ]
    said = desk.runs("distill", *networks, *SHORT, f"outputs={student}")
    logits = {
        role: safetensors.torch.load_file(next(desk.folder.glob(f"{student}/store/{role}-*/logits.safetensors")))[
            "test"
        ]
        for role in ("baseline", "student")
    }
    return said, logits


def test_baseline_and_student_are_those_of_networks_that_leave_their_input_alone(desk):
    desk.write("own.py", OWN)
    said, changed = answers(desk, "ByNumPy", "InPlace")
    assert "teacher: own:ByNumPy changes its input images in place: it gets a copy of each batch" in said
    assert "student: own:InPlace changes its input images in place: it gets a copy of each batch" in said
    said, expected = answers(desk, "Copying", "Copying")
    assert "in place" not in said
    for role in ("baseline", "student"):
        assert torch.equal(changed[role], expected[role]), role
    done = desk.type("train", "baseline", "student=external", "student.target=own:Sometimes", *SHORT[:2], "device=cpu")
    assert done.returncode == 3 and "Traceback" not in done.stdout + done.stderr
    assert "baseline external seed 0 changed the images of a batch in place" in done.stderr
