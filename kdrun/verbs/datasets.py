"""kdrun datasets: the data sets that dataset=NAME chooses."""

from __future__ import annotations

from collections.abc import Sequence

from kdrun.command.listings import description, files, words
from kdrun.results.tables import Table


def main(rest: Sequence[str]) -> int:
    """Print the list."""
    words("datasets", rest)
    rows = [[name, description(path)] for name, path in files("dataset").items()]
    notes = [
        "files are looked for in dataset.root, then KDRUN_DATA, then ~/.cache/kdrun",
        "your own images: dataset=folder dataset.root=DIR, or a .zip, with train/CLASS/* and test/CLASS/*",
    ]
    print(Table(["name", "what it is"], rows, notes=notes).to_text())
    return 0
