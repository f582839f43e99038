"""Judge kdrun on damaged files and random command lines for some minutes, as in tests/fuzz: right, refused or failed.

    python benchmarks/fuzz.py [--minutes M] [--seed S] [--kinds A,B] [--failures DIR]

The kinds of input take turns. A failure is a traceback, more than five seconds of computing (15 for a command line,
which may be a sweep), changed content that is accepted although there is a checksum, a process that is started, or a
file that is written outside of the input's folder. Every failing input is written to DIR/KIND-SEED-NUMBER, with
reason.txt beside it: `--replay DIR/KIND-SEED-NUMBER` judges it again. Exits with 1 if there was a failure.
"""

import argparse
import faulthandler
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.fuzz import commands, files, images, results
from tests.fuzz.judge import Verdict, judge, lay, taken
from tests.fuzz.kinds import Kind

TURN = 1.0  # seconds
LONGER = {"command lines": 8.0}  # as each takes half a second
STUCK = 120.0  # seconds after which even an input that no alarm can stop ends the program, with its traceback


@dataclass
class Tally:
    """The outcomes of one kind's inputs."""

    kind: Kind
    answers: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    number: int = 0

    def row(self) -> list[str]:
        """Return its row of the table."""
        inputs, counts = sum(self.answers.values()), self.answers
        read = f"{counts['right']}" + (f" + {counts['other']} as they are" if counts["other"] else "")
        return [self.kind.name, str(inputs), read, str(counts["refused"]), str(counts["failed"]),
                f"{1000 * self.slowest:.0f}"]  # fmt: skip


def all_kinds() -> list[Kind]:
    """Return every kind of input."""
    alone = [*files.alone(), *images.images(), commands.kind(files.torch_file())]
    return [*alone, *results.of_results(results.outputs())]


def turn(tally: Tally, seed: int, folder: Path, failures: Path) -> None:
    """Judge a kind's next inputs for a turn."""
    kind, end = tally.kind, time.monotonic() + LONGER.get(tally.kind.name, TURN)
    while time.monotonic() < end:
        tally.number += 1
        damaged = kind.input(random.Random(f"{kind.name} {seed} {tally.number}"))
        faulthandler.dump_traceback_later(STUCK, exit=True)
        verdict = judge(kind, folder, damaged)
        faulthandler.cancel_dump_traceback_later()
        tally.answers[verdict.answer] += 1
        tally.slowest = max(tally.slowest, verdict.seconds)
        if verdict.answer == "failed":
            _keep(tally, seed, damaged, verdict, failures)


def _keep(tally: Tally, seed: int, damaged: dict[str, bytes], verdict: Verdict, failures: Path) -> None:
    """Write a failing input to disk, at most ten for one reason."""
    lines = verdict.reason.strip().splitlines()
    reason = f"{lines[0][:100]} … {lines[-1][:100]}"
    tally.reasons[reason] += 1
    if tally.reasons[reason] <= 10:
        name = f"{tally.kind.name.replace(' ', '_').replace('/', '_').replace('*', '')}-{seed}-{tally.number}"
        lay(failures / name / "input", damaged)
        (failures / name / "kind.txt").write_text(tally.kind.name)
        (failures / name / "reason.txt").write_text(verdict.reason, errors="backslashreplace")


def table(rows: list[list[str]]) -> str:
    """Return rows as a Markdown table, the first as its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def main() -> int:
    """Judge inputs until the time is over, print the table, and return the exit code."""
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of damaged images
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="")
    parser.add_argument("--failures", type=Path, default=Path("outputs/fuzz-failures"))
    parser.add_argument("--replay", type=Path)
    args = parser.parse_args()
    kinds = {kind.name: kind for kind in all_kinds()}
    with tempfile.TemporaryDirectory(prefix="kdrun-fuzz-") as place:
        folder = Path(place) / "input"
        if args.replay:
            verdict = judge(kinds[(args.replay / "kind.txt").read_text()], folder, taken(args.replay / "input"))
            print(verdict.answer, verdict.reason)
            return int(verdict.answer == "failed")
        tallies = [Tally(kind) for name, kind in kinds.items() if not args.kinds or name in args.kinds.split(",")]
        end = time.monotonic() + 60 * args.minutes
        while time.monotonic() < end:
            for tally in tallies:
                turn(tally, args.seed, folder, args.failures.absolute())
    head = ["kind", "inputs", "read right", "refused", "failures", "slowest, ms"]
    total: Counter[str] = sum((tally.answers for tally in tallies), Counter())
    rows = [head, *(tally.row() for tally in tallies)]
    print(table([*rows, ["all", str(sum(total.values())), str(total["right"] + total["other"]), str(total["refused"]),
                         str(total["failed"]), f"{1000 * max(t.slowest for t in tallies):.0f}"]]))  # fmt: skip
    for tally in tallies:
        for reason, count in tally.reasons.most_common():
            print(f"{tally.kind.name}: {count} × {reason}")
    if total["failed"]:
        print(f"the failing inputs are in {args.failures}")
    return int(bool(total["failed"]))


if __name__ == "__main__":
    raise SystemExit(main())
