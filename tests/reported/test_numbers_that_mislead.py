"""Numbers that look like a finding and are none: reported values of other settings, NaN that is right, tiny gaps."""

import json

MINE = """# @package _global_
# a pair of my own, whose numbers a paper reports
defaults:
  - override /loss: dkd_ls
recipe: {epochs: 1, protocol: paper}
teacher: {recipe: {epochs: 1}}
published:
  dkd_ls: {T: 3.0, weight: 18.0, beta: 2.0}
reported:
  - source: Somebody 2024
    epoch: last
    top1: {teacher: 91.25, baseline: 80.50, dkd_ls: 84.75}
"""

CRACKED = """import torch
from torch import nn

class Net(nn.Module):  # bright images make its first logit no number
    def __init__(self, num_classes=10):
        super().__init__()
        self.body = nn.Linear(64, num_classes)

    def forward(self, x):
        z = self.body(x.flatten(1))
        lost = (x.amin((1, 2, 3)) > -0.5)[:, None] & (torch.arange(z.shape[1]) == 0)
        return z.masked_fill(lost, float("nan"))
"""


def test_what_a_paper_reports_stands_beside_its_own_settings_and_no_others(desk):
    desk.write("conf/experiment/mine.yaml", MINE)
    typed = ["distill", "experiment=mine", "seeds=1", "device=cpu", "report=false"]
    output = " ".join(desk.runs(*typed).split())  # a note wraps where the terminal ends
    assert "reported %" in output and "84.75 last" in output
    assert "reported %, last epoch, by Somebody 2024: teacher 91.25, baseline 80.50, student 84.75" in output
    assert "L = CE(y, p_s) + 18·3²·min(epoch/20, 1)·[1·TCKD + 2·NCKD](p_t ‖ p_s; T=3; z-scores)" in output
    output = " ".join(desk.runs(*typed, "loss.dkd_ls.beta=8").split())
    assert "84.75" not in output
    assert "published results of this pair are not comparable, so they are left out: loss.dkd_ls.beta=8" in output


def test_no_number_is_never_a_right_answer(desk):
    """Digits are a tenth zeros, so that NaN in the place of class 0 was right on a tenth of the bright images."""
    desk.write("cracked.py", CRACKED)
    desk.runs("train", "baseline", "student=external", "student.target=cracked:Net", "recipe.epochs=1", "seeds=1",
              "device=cpu", "report=false")  # fmt: skip
    how = ["robustness=quick", "robustness.corruptions=[brightness]", "robustness.severities=[5]", "robustness.fgsm=[]",
           "robustness.pgd=[]", "device=cpu"]  # fmt: skip
    desk.runs("evaluate", "latest", *how)
    (kept,) = desk.folder.glob("outputs/store/*/measured/robustness-*.json")
    accuracy = json.loads(kept.read_text())["accuracy"]
    assert accuracy["brightness"] == {"5": 0.0} and accuracy["clean"]["0"] > 0.2
