"""Networks that return more than logits, some of them in training mode alone; those that return probabilities."""

import json

OWN = """
from collections import namedtuple
from torch import nn

GoogLeNetOutputs = namedtuple("GoogLeNetOutputs", ["features", "logits"])

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

class Named(Net):
    def forward(self, x):
        return GoogLeNetOutputs(x, super().forward(x))

class Wrapped(Net):
    def forward(self, x):
        return {"loss": None, "logits": super().forward(x)}

class Lost(Net):
    def forward(self, x):
        return (x, super().forward(x)) if self.training else super().forward(x)

class Soft(Net):
    def forward(self, x):
        z = super().forward(x)
        return z if self.training else z.softmax(1)

class LogSoft(Net):
    def forward(self, x):
        return super().forward(x).log_softmax(1)
"""


def test_logits_among_several_outputs_train_the_same_network_as_logits_alone(desk):
    desk.write("own.py", OWN)
    own = ["student=external", "recipe.epochs=1", "recipe.warmup_epochs=0", "seeds=1", "device=cpu"]
    said = desk.runs("train", "baseline", "-m", *own, "student.target=own:Net,own:Auxiliary")
    assert "own:Auxiliary in training mode returns a tuple: its first entry is taken as the logits, the rest" in said
    results = [json.loads(file.read_text()) for file in desk.folder.glob("outputs/store/baseline-*/result.json")]
    assert len(results) == 2 and results[0]["selected"] == results[1]["selected"]
    own = ["teacher=external", "teacher.target=own:Named", "student=external", "student.target=own:Wrapped"]
    said = desk.runs("distill", *own, "device=cpu", "plan=true")
    assert "teacher: own:Named returns a GoogLeNetOutputs: its entry called logits is taken as the logits" in said
    assert "student: own:Wrapped returns a dict: its entry called logits is taken as the logits" in said


def test_what_holds_no_logits_in_either_mode_is_refused_before_anything_trains(desk):
    desk.write("own.py", OWN)
    own = ["student=external", "student.target=own:Lost,own:Soft,own:LogSoft", "device=cpu"]
    lost, soft = desk.problems("train", "baseline", "-m", *own)  # a log-softmax is as good as the logits
    assert "own:Lost returns a tuple, in which neither an entry called logits nor the first is a tensor of" in lost
    assert "own:Soft returns probabilities in eval mode (each row sums to 1) where logits are needed" in soft
