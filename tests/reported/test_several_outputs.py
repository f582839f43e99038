"""Networks with auxiliary heads, which return more than logits in training mode alone."""

import json

OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(64, num_classes)
    def forward(self, x):
        return self.fc(x.flatten(1))

class Auxiliary(Net):
    def forward(self, x):
        z = super().forward(x)
        return (z, z.square()) if self.training else z
"""


def test_a_network_with_an_auxiliary_head_trains_as_the_one_without(desk):
    desk.write("own.py", OWN)
    own = ["teacher=external", "teacher.target=own:Net", "student=external", "student.target=own:Auxiliary", "alpha=0"]
    short = ["recipe.epochs=1", "recipe.warmup_epochs=0", "teacher.recipe.epochs=1", "teacher.recipe.warmup_epochs=0"]
    output = desk.runs("distill", *own, *short, "seeds=1", "device=cpu")
    assert "own:Auxiliary in training mode returns a tuple: its first entry is used as the logits, the rest" in output
    results = [json.loads(file.read_text()) for file in desk.folder.glob("outputs/store/*/result.json")]
    assert len(results) == 2 and results[0]["selected"] == results[1]["selected"]  # the teacher, and both others
