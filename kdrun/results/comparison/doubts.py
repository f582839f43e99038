"""What speaks against a comparison's teacher before anything is said of its student."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kdrun.evaluation.chance import better_than_chance, largest_share
from kdrun.results.tables import per_cent

if TYPE_CHECKING:
    from kdrun.results.comparison.comparison import Comparison


def doubts(comparison: Comparison) -> Iterator[str]:
    """Return which teacher is no better than chance on the test images, and that one is not above the baseline."""
    for row in comparison.teachers:
        for member in row.finished[:1]:
            labels = member.labels()
            if not better_than_chance(member.point("test"), labels):
                yield (
                    f"The {comparison.names[row]} is no better than chance: {per_cent(row.summary('test'))}% of the "
                    f"test images right, and the largest class has {100 * largest_share(labels):.2f}%."
                )
    towards = comparison.towards
    teacher = None if towards is None else towards.summary("test")
    for lane in comparison.lanes:
        alone = None if lane.baseline is None else lane.baseline.summary("test")
        if towards is None or teacher is None or lane.baseline is None or alone is None or lane.student is None:
            continue
        if comparison.same_test and not lane.towards_itself and teacher.mean <= alone.mean:
            yield (
                f"The {comparison.names[towards]} ({per_cent(teacher)}%) is not above the "
                f"{comparison.names[lane.baseline]} ({per_cent(alone)}%): there is little to learn from it."
            )
