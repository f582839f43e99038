"""kdrun runs: what lies under outputs/, and how two runs differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdrun.command.listings import words
from kdrun.results.collect import compare_runs, list_runs


def main(rest: Sequence[str]) -> int:
    """Print the list, or the differences of two."""
    asked = words("runs", rest, "names", outputs=True)
    outputs = Path(asked.outputs).expanduser()
    if len(asked.names) not in (0, 2):
        raise ValueError(f"kdrun runs takes no name, or two to compare; got {len(asked.names)}")
    table = compare_runs(asked.names[0], asked.names[1], outputs) if asked.names else list_runs(outputs)
    print(table.to_text())
    return 0
