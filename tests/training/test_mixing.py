"""Mixed images in trainings: the same for all of a cohort, and the same bit for bit however a training goes."""

import csv
import dataclasses

import pytest
import torch

from kdrun.training.learner import Learner
from kdrun.training.request import cohorts
from kdrun.training.teaching import Teaching
from tests.training.conftest import HELPED, interrupt, same, weights, without_time

MIXED = {"mixup": {"use": "mixup.Mixup", "alpha": 1.0, "probability": 0.8}, "cutmix": {"use": "cutmix.Cutmix"}}
ALONE = {"kd": {"use": "kd.KD", "weight": 1.0, "T": 4.0}}


@pytest.fixture
def mixed_request(request_for, trained_teacher):
    """Return a function that requests a training on mixed images, taught by the teacher if it has another loss."""

    def make(objective=None, augment=MIXED, **settings):
        role = "student" if objective else "baseline"
        teachers = [trained_teacher.spec.fingerprint] if objective else []
        made = request_for(role, objective=objective, teachers=teachers, **settings)
        data = {**made.spec.data, "augment": augment}
        return dataclasses.replace(made, spec=dataclasses.replace(made.spec, data=data))

    return make


def test_teacher_baseline_and_students_of_a_cohort_see_the_same_pixels(mixed_request, new_obtainer, monkeypatch):
    taught, learned, right = [], [], []
    outputs, forward, update = Teaching._outputs, Learner.forward, Learner.update

    def watched_update(self, batch, student, teachers):
        labels = [batch.dominant, batch.labels]
        right.append((self.objective.formula(), [int((student.logits.argmax(1) == own).sum()) for own in labels]))
        update(self, batch, student, teachers)

    monkeypatch.setattr(
        Teaching, "_outputs", lambda s, t, images: taught.append(images.clone()) or outputs(s, t, images)
    )
    monkeypatch.setattr(Learner, "forward", lambda s, batch: learned.append(batch.images.clone()) or forward(s, batch))
    monkeypatch.setattr(Learner, "update", watched_update)
    wanted = [mixed_request(epochs=1), mixed_request(HELPED, epochs=1), mixed_request(ALONE, epochs=1)]
    assert len(cohorts(wanted)) == 1
    artifacts = new_obtainer().obtain(wanted)
    assert len(learned) == 3 * len(taught) == 3 * 4
    for number, images in enumerate(taught):
        assert all(torch.equal(images, own) for own in learned[3 * number : 3 * number + 3])
    assert len({images.sum().item() for images in taught}) == 4
    for artifact in artifacts:
        dominant, own = (sum(counts[i] for name, counts in right if name == artifact.result["formula"]) for i in (0, 1))
        (row,) = csv.DictReader((artifact.folder / "history.csv").open())
        assert float(row["train_accuracy"]) == dominant / 129 != own / 129


@pytest.mark.parametrize("augment", [MIXED, {**MIXED, "views": 2, "seed": 5}])
def test_a_cohort_on_mixed_images_is_its_members_alone_and_goes_on_after_an_interruption(
    mixed_request, new_obtainer, trained_teacher, augment
):
    wanted = [mixed_request(augment=augment), mixed_request(HELPED, augment)]
    together = new_obtainer().obtain(wanted)
    alone, stopped = new_obtainer("alone"), new_obtainer("stopped")
    for obtainer in (alone, stopped):
        obtainer.obtain([trained_teacher])
    interrupt(stopped, wanted)
    resumed = new_obtainer("stopped").obtain(wanted)
    for request, artifact, again in zip(wanted, together, resumed, strict=True):
        (single,) = alone.obtain([request])
        assert same(weights(single), weights(artifact)) and same(weights(again), weights(artifact))
        assert without_time(single) == without_time(artifact)
