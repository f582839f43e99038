"""An own network whose last linear layer is not its head: relation losses compared its logits."""

OWN = """
import torch
from torch import nn

class Squeeze(nn.Module):  # ends in a convolution
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Conv2d(1, 6, 3)
        self.final = nn.Conv2d(6, num_classes, 1)
    def forward(self, x):
        return self.final(self.body(x).relu()).relu().mean((2, 3))

class Reversed(nn.Module):  # registers its head first
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(12, num_classes)
        self.body = nn.Linear(64, 12)
    def forward(self, x):
        return self.head(self.body(x.flatten(1)).relu())

class Prototypes(nn.Module):  # has no layer that gives the logits
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Linear(64, 12)
        self.prototypes = nn.Parameter(torch.randn(num_classes, 12))
    def forward(self, x):
        return -torch.cdist(self.body(x.flatten(1)), self.prototypes)
"""


def test_the_head_is_found_by_what_it_gives_or_the_loss_that_needs_it_is_refused(desk):
    desk.write("own.py", OWN)
    own = ["student=external", "device=cpu", "plan=true", "seeds=1", "loss.cc.feature_dim=16"]
    output = desk.runs("distill", "loss=cc", *own, "student.target=own:Squeeze", "teacher=external",
                     "teacher.target=own:Reversed")  # fmt: skip
    assert "student: own:Squeeze has final as its head: the input of the head is the embedding" in output
    assert "teacher: own:Reversed has head as its head: the input of the head is the embedding" in output
    assert "its loss has 320 trainable parameters" in output  # (6 + 1)·16 + (12 + 1)·16: of embeddings, not logits
    output = desk.refuses("distill", "loss=cc", *own, "student.target=own:Prototypes")
    assert "loss.cc: the student's network has no known embedding" in output and "student.embedding=MODULE" in output
