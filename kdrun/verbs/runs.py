"""kdrun runs: list the runs under outputs/, or show how two runs differ."""

from __future__ import annotations

from collections.abc import Sequence

from kdrun.checks import typed_folder
from kdrun.command.listings import words
from kdrun.results.collect import compare_runs
from kdrun.results.overview import list_runs


def main(rest: Sequence[str]) -> int:
    """Print the list of runs, or the differences between two."""
    args = words("runs", rest, "names", outputs=True)
    outputs = typed_folder(args.outputs, "outputs=")
    filters = [word for word in args.names if "=" in word]
    names = [word for word in args.names if "=" not in word]
    if len(names) not in (0, 2):
        raise ValueError(
            f"runs: got {len(names)} name{'s'[: len(names) != 1]}; type two names to compare runs, or none to list "
            "them (a filter such as dataset=digits lists some)"
        )
    if names and (filters or args.n):
        raise ValueError(f"runs {' '.join(names)}: compares two runs; leave filters and -n out")
    if args.n is not None and args.n < 1:
        raise ValueError(f"runs: -n {args.n}: must be at least 1 (how many of the newest runs to list)")
    if names:
        print(compare_runs(names[0], names[1], outputs).to_text(wide=args.wide))
        return 0
    print(list_runs(outputs, filters, args.n, wide=args.wide).to_text(wide=args.wide))
    return 0
