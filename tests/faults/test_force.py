"""force=true trains anew once per command, whatever the clocks of machines and file servers say."""

import os
import time

import pytest

from tests import warm
from tests.faults.conftest import SMALL, TEACHER

ONE = ["train", "teacher", *TEACHER]


def dated(desk, when):
    """Return all files of the store this time."""
    for path in desk.outputs.glob("store/**/*"):
        os.utime(path, (when, when))


def test_force_trains_anew_what_was_written_in_the_future_or_long_ago(taught):
    year = 365 * 86400
    dated(taught, time.time() + year)
    output = taught.type(*ONE, "force=true")
    assert output.count(": training ") == 1 and ": found" not in output
    dated(taught, time.time() - year)
    output = taught.type(*ONE, "force=true")  # another command, though typed alike
    assert output.count(": training ") == 1 and ": found" not in output


@pytest.mark.slow  # sixteen seconds
def test_a_killed_forced_sweep_goes_on_without_force_and_begins_anew_with_it(taught):
    words = ["distill", "-m", "T=4,5", *SMALL]
    taught.type(*words, "force=true", code=-9, KDRUN_FAULT="after_batch:13:kill")  # the teacher is done, one epoch more
    store = sorted(taught.outputs.glob("store/*/*"))
    pruned = warm.type_(taught.folder, "store", "prune", "--yes")  # the sweep has recorded what it needs
    assert pruned.returncode == 0 and sorted(taught.outputs.glob("store/*/*")) == store, pruned.stdout + pruned.stderr
    output = taught.type(*words)
    assert "teacher digits_teacher: training" not in output and output.count("resuming after epoch") == 3
    output = taught.type(*words, "force=true")
    assert output.count("teacher digits_teacher: training") == 1 and output.count("teacher digits_teacher: found") == 2
    assert output.count("baseline mlp seed 0: training") == 1 and "resuming" not in output
