"""The share of the gap to the teacher that a student closes, and when it is not shown."""

import numpy as np
import pytest
from scipy import stats

from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.table import comparison_table
from kdrun.results.comparison.write import data
from tests.results.given import artifact, column, compare, lane, logits, notes_of, record, trio


def test_a_teacher_no_better_than_the_baseline_leaves_no_gap(tmp_path):
    comparison = compare(trio(tmp_path, [93], [90], teacher=90))
    assert lane(comparison).gap is None
    assert "gap % is undefined: the teacher is not better than the baseline" in notes_of(comparison)


def test_a_gap_that_may_be_nothing_is_not_shown(tmp_path):
    """One test image between teacher and baseline, seven between student and baseline: 700% says nothing."""
    right = np.arange(100)
    wobbly = (right < 90) & (right != 3) | (right == 95) | (right == 96)  # one more than the baseline, not the same
    folders = [
        artifact(tmp_path, "teacher", z=logits(wobbly)),
        artifact(tmp_path, "baseline", 0, right=90),
        artifact(tmp_path, "student", 0, right=97),
    ]
    comparison = Comparison(folders, record(folders))
    assert lane(comparison).gap is None and set(column(comparison, "gap %")) == {"–"}
    assert "gap closed" not in comparison.verdict()
    note = (
        "gap % is not shown: teacher − baseline is +1.00 on these test images, 95% [-2.00, +5.00] by a paired "
        "bootstrap over them, so it may be zero"
    )
    assert note in comparison_table(comparison).notes
    assert data(comparison)["lanes"][0]["teacher_gap"] == {"mean": pytest.approx(0.01), "low": -0.02, "high": 0.05}


def test_several_baselines_are_averaged_before_the_teacher_is_held_against_them(tmp_path):
    folders = trio(tmp_path, [95, 95, 95], [90, 92, 94], teacher=96)
    way = lane(Comparison(folders, record(folders))).way
    d = (np.arange(100) < 96) - np.mean([np.arange(100) < n for n in (90, 92, 94)], axis=0)
    expected = stats.bootstrap((d,), np.mean, method="percentile", rng=np.random.default_rng(3)).confidence_interval
    assert (way.mean, way.low, way.high) == pytest.approx((0.04, expected.low, expected.high), abs=0.003)
    assert way.low > 0
