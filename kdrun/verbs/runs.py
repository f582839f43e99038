"""kdrun runs: what lies under outputs/, and how two runs differ."""

from __future__ import annotations

from collections.abc import Sequence

from kdrun.checks import typed_folder
from kdrun.command.listings import words
from kdrun.results.collect import compare_runs, list_runs


def main(rest: Sequence[str]) -> int:
    """Print the list, or the differences of two."""
    args = words("runs", rest, "names", outputs=True)
    outputs = typed_folder(args.outputs, "outputs=")
    if len(args.names) not in (0, 2):
        raise ValueError(f"kdrun runs takes no name, or two to compare; got {len(args.names)}")
    table = compare_runs(args.names[0], args.names[1], outputs) if args.names else list_runs(outputs)
    print(table.to_text(wide=args.wide))
    return 0
