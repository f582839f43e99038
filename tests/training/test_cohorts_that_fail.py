"""Cohorts that do not fit into memory, or fail: their trainings go on one at a time, to the same numbers."""

import pytest
import torch

from kdrun.files import RunFailed
from kdrun.training import devices, estimate
from kdrun.training.learner import Learner
from kdrun.training.obtain import MEMORY_SHARE
from tests.training.conftest import CE, HELPED, KD, same, weights, without_time


def fails_for(monkeypatch, broken):
    """Let kd run out of memory while more than `broken` learners of a cohort are at work."""
    from kdrun.losses.kd import KD as Term
    from kdrun.training import cohort

    together = []
    train = cohort.train

    def counted(learners, *args, **kwargs):
        together.append(len(learners))
        return train(learners, *args, **kwargs)

    forward = Term.forward

    def allocate(self, student, teacher, batch):
        if together[-1] > broken and batch.epoch == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, student, teacher, batch)

    monkeypatch.setattr(cohort, "train", counted)
    monkeypatch.setattr(Term, "forward", allocate)
    return together


def test_a_cohort_that_does_not_fit_goes_on_one_at_a_time(
    request_for, new_obtainer, trained_teacher, monkeypatch, caplog
):
    teachers = [trained_teacher.spec.fingerprint]
    wanted = [request_for("baseline"), request_for("student", objective=HELPED, teachers=teachers)]
    other = new_obtainer("other")
    other.obtain([trained_teacher])
    expected = other.obtain(wanted)
    together = fails_for(monkeypatch, broken=1)
    made = new_obtainer().obtain(wanted)
    assert together == [2, 1, 1]
    assert "do not fit into memory together with recipe.batch_size=32" in caplog.text
    for a, b in zip(made, expected, strict=True):
        assert same(weights(a), weights(b)) and without_time(a) == without_time(b)


def test_one_training_that_does_not_fit_names_the_batch_size(request_for, new_obtainer, trained_teacher, monkeypatch):
    teachers = [trained_teacher.spec.fingerprint]
    fails_for(monkeypatch, broken=0)
    with pytest.raises(
        RunFailed, match=r"student net seed 0: out of memory with recipe\.batch_size=32 \(peak .*\); type a smaller"
    ):
        new_obtainer().obtain([request_for("student", objective=HELPED, teachers=teachers)])


def test_which_training_of_how_many_is_said_for_the_whole_command(
    request_for, new_obtainer, trained_teacher, monkeypatch
):
    from kdrun.training import trainer

    titles = []
    bar = trainer.Bar
    monkeypatch.setattr(
        trainer, "Bar", lambda title, *args, **kwargs: titles.append(title) or bar(title, *args, **kwargs)
    )
    obtainer = new_obtainer()
    small = [request_for(seed=s, epochs=1) for s in (0, 1)]
    obtainer.expect([trained_teacher, *small])  # the teacher is found
    for request in small:
        obtainer.obtain([request])
    assert titles == ["training 1 of 2, seed 0", "training 2 of 2, seed 1"]


def test_a_cohort_that_would_not_fit_is_split_beforehand_and_gives_the_same_numbers(
    request_for, new_obtainer, trained_teacher, monkeypatch, caplog
):
    caplog.set_level("DEBUG")
    taught = [trained_teacher.spec.fingerprint]
    wanted = [
        request_for("student", objective={"ce": CE, "kd": {**KD, "T": T}}, teachers=taught) for T in (1.0, 2.0, 4.0)
    ]
    whole = new_obtainer().obtain(wanted)
    one = estimate.learner_size(wanted[0])
    room = int((2 * one.persistent + one.activations + 1) / MEMORY_SHARE)  # two of three
    monkeypatch.setattr(devices, "free_memory", lambda device: room)
    other = new_obtainer("split")
    other.obtain([trained_teacher])
    trained = []
    train = other.trainer.train
    monkeypatch.setattr(other.trainer, "train", lambda part, title: trained.append(len(part)) or train(part, title))
    for artifact, split in zip(whole, other.obtain(wanted), strict=True):
        assert same(weights(artifact), weights(split))
    assert trained == [2, 1]
    assert "training them in 2 groups" in caplog.text


def test_when_a_cohort_fails_its_trainings_go_on_one_at_a_time_and_the_reason_is_logged(
    request_for, new_obtainer, monkeypatch, caplog
):
    calm, rough = request_for(), request_for("student", objective={"ce": {**CE, "label_smoothing": 0.5}})
    obtainer, step = new_obtainer(), Learner.update

    def update(learner, *arguments):
        if learner.name == rough.label and learner.position == (1, 2):
            raise RuntimeError("a bug in a loss")
        step(learner, *arguments)

    monkeypatch.setattr(Learner, "update", update)
    with pytest.raises(RuntimeError, match="a bug in a loss"):
        obtainer.obtain([calm, rough])
    assert "2 trainings failed together (RuntimeError: a bug in a loss): training one at a time" in caplog.text
    assert obtainer.store.find(calm.spec.fingerprint).finished
    assert obtainer.store.find(rough.spec.fingerprint) is None
    monkeypatch.undo()
    alone = new_obtainer("alone").obtain([calm])[0]
    assert same(weights(alone), weights(obtainer.store.find(calm.spec.fingerprint)))
