"""Write report.html for a run, for a sweep, or for any number of both, finished or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kdrun.files import write_atomic
from kdrun.records import RunJson, SweepJson
from kdrun.results import tested
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.networks import open_networks
from kdrun.results.plots.sweep import plot_sweep
from kdrun.results.report import run as run_page
from kdrun.results.report.page import Block, Page, Picture, Section
from kdrun.results.runs import UNFINISHED, Run, short
from kdrun.results.sweep.sweep import every_lane
from kdrun.results.sweep.table import sweep_table
from kdrun.results.tables import Sentences, Table
from kdrun.version import __version__

NAME = "report.html"


def write_run_page(folder: Path, comparison: Comparison, target: Path | None = None) -> Path:
    """Write the page of one run into its folder or into `target`."""
    target = target or folder
    sections = [*run_page.run_sections(comparison, folder, target), *_provenance(comparison)]
    return _write(target, _name(folder, comparison.record), comparison.verdict().parts, sections,
                  facts=run_page.facts(comparison))  # fmt: skip


def write_sweep_page(folder: Path, store: Path, target: Path | None = None) -> Path:
    """Write the page of a sweep: its table and picture, the page of the chosen cell, and what failed and why.

    Raise ValueError if sweep.json is missing or damaged.
    """
    target = target or folder
    sweeps = every_lane(folder)
    first = sweeps[0]
    table = sweep_table(sweeps)
    drawn = plot_sweep(sweeps, target)
    pictures = [Picture(drawn, "accuracy over what was swept")] if drawn else []
    sections = [Section("Sweep", [*pictures, run_page.untitled(table)])]
    best = first.best or (first.done[0] if len(first.done) == 1 else None)
    warnings = _unfinished([cell.run for cell in first.cells])
    facts: list[tuple[str, str]] = [("command", str(first.record.get("command", "–")))]
    if best is not None and (comparison := comparison_of(best.run, store)) is not None:
        chosen = best.name or "the only cell"
        chosen += f" ({first.lane})" if len(sweeps) > 1 else ""
        about = [*run_page.run_sections(comparison, best.run.folder, target), *_provenance(comparison)]
        sections += [replace(section, title=f"{section.title}: {chosen}") for section in about]
        facts = [*facts, ("the chosen cell", chosen), *run_page.facts(comparison)[1:]]
    else:
        sections += [
            Section(
                cell.name,
                _stored(cell.run, [tested.verdict(cell.run, first.holm.get(cell.number), first.tests)]),
                folded=True,
            )
            for cell in first.done
            if cell.run.comparison is not None
        ]
        known = next(filter(None, (comparison_of(cell.run, store) for cell in first.done)), None)
        facts += [] if known is None else run_page.facts(known)[2:]  # versions and devices
    sections += _failures([cell.run for cell in first.cells])
    return _write(target, _name(folder, first.record), table.titles, sections, warnings, facts)


def write_collection_page(
    runs: Sequence[Run], table: Table, target: Path, pictures: Sequence[Picture] = (), extra: Sequence[Table] = ()
) -> Path:
    """Write the page of many runs: a table and pictures of all, the verdict and table of each, and failures."""
    sections = [Section("All runs", [run_page.untitled(table), *extra, *pictures])]
    verdicts = tested.verdicts(runs)
    for run in runs:
        if run.comparison is not None:
            title = f"{short(run.name)}: {run.typed or run.choice('dataset')}"
            sections.append(Section(title, _stored(run, verdicts[run.folder]), folded=True))
    sections += _failures(runs)
    # a sweep's cells share one command
    facts = list({short(run.name).partition("/")[0]: str(run.record.get("command", "–")) for run in runs}.items())
    return _write(target, "Report", table.titles, sections, _unfinished(runs), facts)


def comparison_of(run: Run, store: Path) -> Comparison | None:
    """Return a run's comparison, computed from its artifacts; None if it has none, or if one is gone or damaged."""
    folders = [store / str(used["folder"]) for used in run.record.get("artifacts") or []]
    if not folders or len(open_networks(folders).networks) < len(set(folders)):
        return None
    return Comparison(folders, run.record)


def _provenance(comparison: Comparison) -> list[Section]:
    return [
        Section("Where every number comes from", run_page.sources(comparison), folded=True),
        Section("All settings", run_page.settings(comparison.record), folded=True),
    ]


def _stored(run: Run, verdicts: Sequence[str]) -> list[Block]:
    """Return a finished run's verdicts with the table in its comparison.json."""
    assert run.comparison is not None
    kept = run.comparison.get("table")
    if not kept:
        return [*verdicts]
    rows = [[str(row.get(c, "–")) for c in kept["columns"]] for row in kept["rows"]]
    return [*verdicts, Table(kept["columns"], rows, "", kept.get("notes", ()))]


def _unfinished(runs: Sequence[Run]) -> list[str]:
    """Return warnings of runs that are unfinished or failed."""
    waiting = [run for run in runs if run.status in UNFINISHED]
    failed = [run for run in runs if run.comparison is None and run not in waiting]
    warnings = []
    if waiting:
        names = ", ".join(map(_called, waiting))
        warnings.append(
            f"Partial: {len(waiting)} of {len(runs)} not finished ({names}); the same command goes on with them."
        )
    if failed:
        warnings.append(f"{len(failed)} of {len(runs)} failed; the reasons stand at the end.")
    return warnings


def _failures(runs: Sequence[Run]) -> list[Section]:
    """Return the section of runs that are not done, with the reasons."""
    rows = [[_called(run), run.status, run.reason or "–"] for run in runs if run.status != "done"]
    return [Section("Not done", [Table(["run", "status", "reason"], rows)])] if rows else []


def _called(run: Run) -> str:
    return run.typed or short(run.name)


def _name(folder: Path, record: RunJson | SweepJson) -> str:
    return f"{record.get('command', 'kdrun')}  ·  {folder.name}"


def _write(
    target: Path,
    title: str,
    verdict: Sequence[str],
    sections: Sequence[Section],
    warnings: Sequence[str] = (),
    facts: Sequence[tuple[str, str]] = (),
) -> Path:
    sentences = [s for part in verdict for s in (part.parts if isinstance(part, Sentences) else [part])]
    page = Page(title, sentences, sections, warnings, f"made by kdrun {__version__}", facts)
    write_atomic(target / NAME, page.to_html().encode())
    return target / NAME
