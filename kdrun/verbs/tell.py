"""The end of a training verb: the comparison written into the run's folder and shown on the terminal."""

from __future__ import annotations

import os

from kdrun.results.comparison import write_comparison
from kdrun.store import RunFailed
from kdrun.verbs.session import Run


def tell_comparison(run: Run) -> None:
    """Write comparison.* for the run's artifacts, print its table, and say where everything is.

    Raises RunFailed, after all of that, where a training diverged.
    """
    run.write("running")
    text = write_comparison(run.folder, [a.folder for _, a in run.artifacts], run.record)
    print(text)
    print(f"\nresults: {os.path.relpath(run.folder)}")
    if lost := [a for _, a in run.artifacts if not a.finished]:
        first = lost[0]
        raise RunFailed(
            f"{len(lost)} of {len(run.artifacts)} trainings {first.result['status']}: {first.result['reason']}"
        )
