"""kdrun report: any runs and sweeps in one table, read from their result files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdrun.results.collect import write_report
from kdrun.verbs.listing import words


def main(rest: Sequence[str]) -> int:
    """Collect, print and write the table."""
    asked = words("report", rest, "paths", outputs=True)
    outputs = Path(asked.outputs).expanduser()
    target = Path(asked.to) if asked.to else outputs / "report"
    print(write_report(asked.paths, outputs, target))
    print(f"\nresults: {target}")
    return 0
