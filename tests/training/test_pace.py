"""The time left of a command, by the pace of the trainings that ran in it."""

import pytest

from kdrun.training.pace import Pace
from tests.training.conftest import TEACHER


def test_the_time_left_is_that_of_the_epochs_left_at_the_pace_measured(request_for):
    first, second, teacher = request_for(seed=0), request_for(seed=1), request_for("teacher", TEACHER, epochs=5)
    pace = Pace()
    pace.expect([first, second, teacher])
    pace.begin([first])
    assert pace.waiting == 2 and pace.left([(first, 3)]) is None  # nothing was measured yet
    pace.measure(first, 2.0)
    pace.passed(3.0)  # an epoch of 2 s, and 1 s of measuring and saving
    assert pace.left([(first, 2)], waiting=False) == pytest.approx(2 * 2.0 * 1.5)
    assert pace.left([(first, 2)]) is None  # nobody knows how long the teacher takes
    pace.begin([teacher])
    assert pace.left([(first, 2)]) == pytest.approx((2 + 3) * 2.0 * 1.5)  # and three epochs of the second, of its kind
