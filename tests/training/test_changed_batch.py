"""The net under the copies: a network that writes into some batches only fails, and no other of its cohort with it."""

import sys

import pytest
import torch

from kdrun.data.batches import Batches
from kdrun.data.sets import ImageSet
from kdrun.training.networks import ChangedBatch, build_model, load_model
from kdrun.training.teaching import Teaching
from tests.data.given import shifted

SOURCE = """
from torch import nn

class Sometimes(nn.Module):  # not for the images that it is tried on, which have larger pixels
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(64, num_classes)
    def forward(self, x):
        if x.abs().max() < 4:
            x.zero_()
        return self.fc(x.flatten(1))
"""


@pytest.fixture
def sometimes(tmp_path, monkeypatch):
    """The model of a spec, of a module in the current folder."""
    (tmp_path / "sometimes_for_the_test.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield {"use": "external.External", "arguments": {"target": "sometimes_for_the_test:Sometimes"}}
    sys.modules.pop("sometimes_for_the_test", None)


def test_the_others_of_its_cohort_end_as_if_it_had_not_been_there(sometimes, request_for, new_obtainer):
    sound = request_for("baseline", epochs=2)
    broken = request_for("baseline", model=sometimes, epochs=2)
    (alone,) = new_obtainer("alone").obtain([sound])
    obtainer = new_obtainer("beside")
    with pytest.raises(ChangedBatch, match="baseline net seed 0 changed the images of a batch in place"):
        obtainer.obtain([broken, sound])
    beside = obtainer.store.find(sound.spec.fingerprint)
    weights, expected = (load_model(artifact).state_dict() for artifact in (beside, alone))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert obtainer.store.find(broken.spec.fingerprint) is None


def test_a_teacher_that_does_so_stops_the_training_before_a_student_sees_the_batch(
    sometimes, request_for, new_obtainer
):
    request = request_for("teacher", model=sometimes)
    network = build_model(request.spec, seed=0)
    images = torch.rand(8, 1, 8, 8)
    batches = Batches(ImageSet((255 * images).to(torch.uint8), torch.arange(8)), batch_size=8, seed=0,
                      augmentation=shifted(), mean=[0.5], std=[0.5], device=torch.device("cpu"))  # fmt: skip
    teaching = Teaching([network.eval()], batches, precision="fp32", device=torch.device("cpu"))
    (batch,) = batches.epoch(0)
    with pytest.raises(ChangedBatch, match="the teacher changed the images"):
        teaching.teacher_outputs(batch, 0, logits_only=True)
