"""checkpoint_every: when a checkpoint is written changes what a kill costs, and no number."""

import re

import pytest

from kdrun import config
from kdrun.training import checkpoint
from kdrun.training.checkpoint import Pace
from tests.faults.conftest import SMALL


@pytest.mark.parametrize(
    ("every", "batch", "resumed"),
    [
        ("2steps", 10, (1, 3)),  # after the batches 2 and 4 of the first epoch, then after 1 and 3 of the second
        pytest.param("0.00001min", 9, (1, 3), marks=pytest.mark.slow),  # all batches but the one of the kill
        pytest.param("2epochs", 9, None, marks=pytest.mark.slow),
        ("2epochs", 13, (2, 0)),
    ],
)
def test_a_killed_training_resumes_where_its_last_checkpoint_was_and_loses_no_bit(
    taught, finished, every, batch, resumed
):
    words = ["distill", *SMALL, f"checkpoint_every={every}"]
    taught.type(*words, code=-9, KDRUN_FAULT=f"after_batch:{batch}:kill")
    matches = re.findall(r"resuming after epoch (\d), batch (\d)", taught.type(*words))
    assert matches == ([] if resumed is None else [tuple(map(str, resumed))] * 2)
    assert taught.results() == finished.results()


@pytest.mark.parametrize("every", ["5", "epochs", "0epochs", "1.5epochs", "-2steps", "10s", "0min", "2min "])
def test_a_pace_that_means_nothing_is_refused_with_what_to_type(every):
    with pytest.raises(ValueError, match=f"checkpoint_every={every}: choose auto, or .*5epochs, 200steps or 2min"):
        config.every(every)


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    return now


def save(clock, pace, seconds=0.0):
    with pace.saving():
        clock[0] += seconds


def test_by_default_it_is_every_epochs_end_and_within_one_a_minute_after_the_last(clock):
    pace = Pace(config.every("auto"))
    clock[0] = 59
    assert not pace.after_batch()
    clock[0] = 60
    assert pace.after_batch()
    save(clock, pace)
    assert not pace.after_batch() and pace.after_epoch(1)


def test_where_saving_is_slow_it_costs_a_hundredth_of_long_epochs_at_most(clock):
    pace, costs, saved = Pace(config.every("auto")), 0.3, []
    for epoch in range(1, 11):
        clock[0] += 11
        if pace.after_epoch(epoch):
            saved.append(epoch)
            save(clock, pace, costs)
    assert saved == [1, 4, 7, 10]  # once in 33 seconds
    clock[0] += 5
    assert pace.after_epoch(11)  # short epochs are few numbers: each is saved
    save(clock, pace, 2.0)
    clock[0] += 199
    assert not pace.after_batch()
    clock[0] += 1
    assert pace.after_batch()


@pytest.mark.parametrize(
    ("every", "wanted"),
    [("3steps", [3, 6, 9]), ("5steps", ["epoch 1", "epoch 2"]), ("2epochs", ["epoch 2"]), ("1min", [6])],
)
def test_a_typed_pace_is_the_only_one(clock, every, wanted):
    """Two epochs of five batches, one in ten seconds; the last of an epoch is counted at its end."""
    pace, saved = Pace(config.every(every)), []
    for batch in range(1, 11):
        clock[0] += 10
        epoch, rest = divmod(batch, 5)
        if pace.after_batch() if rest else pace.after_epoch(epoch):
            saved.append(batch if rest else f"epoch {epoch}")
            save(clock, pace)
    assert saved == wanted
