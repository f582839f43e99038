"""A teacher that knows nothing, or no more than the baseline, is said before anything of the student."""

from kdrun.results.comparison.comparison import Comparison
from tests.results.given import record, trio


def verdict(folder, **given):
    folders = trio(folder, **given)
    return Comparison(folders, record(folders)).verdict().parts


def test_a_teacher_at_chance_is_said_first(tmp_path):
    first, second, *_ = verdict(tmp_path, teacher=30, students=[93, 95], baselines=[90, 91])
    assert (
        first == "The teacher is no better than chance: its test accuracy is 30.00%, "
        "and the largest class has 25.00% of the images."
    )
    assert (
        second
        == "The teacher (30.00%) is not better than the baseline (90.50 ± 0.71%): there is little to learn from it."
    )


def test_a_teacher_that_only_reaches_the_baseline_is_said_first(tmp_path):
    first, *_ = verdict(tmp_path, teacher=91, students=[93, 95], baselines=[91, 91])
    assert first.startswith("The teacher (91.00%) is not better than the baseline (91.00 ± 0.00%)")


def test_a_teacher_above_the_baseline_is_not_spoken_of(tmp_path):
    assert "The teacher" not in " ".join(verdict(tmp_path, teacher=92, students=[93, 95], baselines=[91, 91]))
