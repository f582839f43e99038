"""kdrun predict: image files classified by a network of a run, or by an exported one."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdrun.command.listings import DEFAULT_OUTPUTS, Words
from kdrun.export.read import Exported
from kdrun.results.tables import Table
from kdrun.verbs.predicting import Answer, classified, network, sources

MOST_NAMED = 10


def main(rest: Sequence[str]) -> int:
    """Print each file's class and its runners-up; exit 2 where one of the files could not be classified."""
    asked = _words(rest)
    found, unreadable = sources(asked.images)
    chosen = network(asked.model, asked.role, asked.seed, Path(asked.outputs).expanduser())
    sheet = chosen.sheet
    answers = list(classified(chosen, found, asked.top))
    if asked.json:
        described = {"title": sheet.title, "role": sheet.role, "model": sheet.model, "seed": sheet.seed,
                     "fingerprint": sheet.fingerprint, "runtime": chosen.runtime, "chosen": chosen.reason}  # fmt: skip
        images = [*(answer.data() for answer in answers), *({"file": f, "error": why} for f, why in unreadable)]
        print(json.dumps({"network": described, "images": images}, indent=2, ensure_ascii=False))
    elif any(not answer.error for answer in answers):
        print(_table(answers, chosen).to_text())
    wrong = [*unreadable, *((answer.file, answer.error) for answer in answers if answer.error)]
    if wrong:
        more = f"; and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        named = "; ".join(f"{file}: {why}" for file, why in wrong[:MOST_NAMED])
        files = f"{len(wrong)} of {len(answers) + len(unreadable)} files"
        print(f"kdrun: {files} could not be classified: {named}{more}", file=sys.stderr)
    return 2 if wrong else 0


def _words(rest: Sequence[str]) -> Namespace:
    parser = Words(prog="predict", add_help=False)
    parser.add_argument("model", nargs="?")
    parser.add_argument("images", nargs="*")
    parser.add_argument("--role")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--outputs", default=DEFAULT_OUTPUTS)
    # KEY=VALUE is how the other verbs take them
    words = [f"--{word}" if re.match("(role|seed|top|outputs)=", word) else word for word in rest]
    asked = parser.parse_intermixed_args(words)
    if asked.model is None or not asked.images:
        what = "which network" if asked.model is None else "which images"
        raise ValueError(f"predict: {what}? Type kdrun predict RUN IMAGES… (kdrun predict --help explains it)")
    if asked.top < 1:
        raise ValueError(f"predict: --top {asked.top}: at least 1 class is needed")
    return asked


def _table(answers: Sequence[Answer], network: Exported) -> Table:
    rows: list[list[Any]] = []
    for answer in answers:
        if answer.error:
            continue
        best, *others = answer.top
        runners = ", ".join(f"{name} {100 * p:.1f}" for _, name, p in others)
        rows.append([answer.file, best[1], f"{100 * best[2]:.1f}", runners])
    notes = [
        "; ".join(said for said in (network.sheet.title, network.reason, network.runtime) if said),
        f"each image: {network.sheet.preprocessing()}",
    ]
    return Table(["image", "class", "%", "runners-up, %"], rows, notes=notes).without_empty("runners-up, %")
