"""The end of a verb that trains: write the comparison into the run's folder and print it."""

from __future__ import annotations

import logging
import os

import torch

from kdrun import checks, config, console
from kdrun.caller import CALLER
from kdrun.files import RunFailed
from kdrun.lifecycle.task import RunRecord
from kdrun.results.comparison import examples
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.write import write_comparison
from kdrun.results.networks import Row
from kdrun.results.tables import per_cent
from kdrun.training.request import Sets

log = logging.getLogger(__name__)


def show_comparison(run: RunRecord, sets: Sets | None = None) -> None:
    """Write comparison.* and the page for the run's artifacts, and print the table and the folder of the results.

    With `sets`, some test images are saved for the page. Raise RunFailed if artifacts were removed meanwhile, or, after
    everything is written, if a training is unfinished.
    """
    run.write("running")
    if gone := [a.folder for _, a in run.artifacts if not (a.folder / "result.json").is_file()]:
        names = ", ".join(folder.name for folder in gone)
        raise RunFailed(
            f"{names}: removed from {gone[0].parent} while this command ran, so nothing can be compared; the same "
            "command retrains it and reuses the rest"
        )
    shown = CALLER.get() is None and (not run.in_sweep or run.verbose)  # a sweep cell's table is in its folder
    with console.busy("comparing"):
        comparison = Comparison([a.folder for _, a in run.artifacts], run.record)
        text = write_comparison(run.folder, comparison, shown=shown)
    if shown:
        print(text)
    elif run.in_sweep:
        log.log(console.RESULT, "%s: %s", run.cell, in_words(comparison))
    if (how := run.record["config"].get("robustness")) and any(a.finished for _, a in run.artifacts):
        from kdrun.results.robustness.table import write_robustness

        folders, command = [a.folder for _, a in run.artifacts], run.invocation.command
        text = write_robustness(run.folder, folders, run.record, config.Robustness(**how), command=command)
        if shown:
            print(f"\n{text}")
    if sets is not None:
        _keep_examples(run, comparison, sets)
    if run.record["config"]["report"] and not run.in_sweep:
        from kdrun.results.report.write import write_run_page

        with console.busy("drawing the page"):
            page = write_run_page(run.folder, comparison)
        log.log(console.RESULT, "page: %s", os.path.relpath(page))
    if shown:
        print(f"\nresults: {os.path.relpath(run.folder)}")
    if unfinished := [a for _, a in run.artifacts if not a.finished]:
        first = unfinished[0]
        raise RunFailed(
            f"{len(unfinished)} of {len(run.artifacts)} trainings {first.result['status']}: {first.result['reason']}"
        )


def in_words(comparison: Comparison) -> str:
    """Return a comparison in one line, of the student or else of the baseline or teacher: `97.69 ± 0.42, +1.02`.

    If there are several students, each is named.
    """
    lanes = [lane for lane in comparison.lanes if lane.student is not None]
    if not lanes:
        return ", ".join(_test(row) for row in comparison.rows)
    parts = []
    for lane in lanes:
        assert lane.student is not None
        gain = "" if lane.paired is None else f", {per_cent(lane.paired.mean, signed=True)}"
        parts.append(f"{f'{lane.name} ' * (len(lanes) > 1)}{_test(lane.student)}{gain}")
    return "; ".join(parts)


def _test(row: Row) -> str:
    """Return a row's test accuracy, or how its trainings ended if there is none."""
    return row.lost() if (test := row.summary("test")) is None else per_cent(test)


def check_examples(run: RunRecord, sets: Sets) -> None:
    """Raise ValueError, before anything trains, if `examples` names a test image that does not exist."""
    count = len(sets.test)
    if wrong := [i for i in run.record["config"]["examples"] if not 0 <= i < count]:
        raise ValueError(f"examples={checks.as_typed(wrong)}: the test images are numbered 0 to {count - 1}")


def _keep_examples(run: RunRecord, comparison: Comparison, sets: Sets) -> None:
    """Save the test images that the page shows: those listed in `examples`, and those chosen by networks' outputs."""
    answers = examples.Answers.of(comparison)
    if answers is None:
        return
    chosen = answers.choose([int(i) for i in run.record["config"]["examples"]])
    if not (indices := examples.every(chosen)):
        return
    images = sets.test.subset(torch.tensor(indices, dtype=torch.int64))
    stored = list(images.stored([torch.arange(len(indices))], torch.device("cpu")))
    examples.write(run.folder, chosen, stored[0].images.permute(0, 2, 3, 1).numpy())
