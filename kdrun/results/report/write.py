"""Writes report.html for a run, for a sweep, or for any number of both, whatever state they are in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kdrun.records import RunJson, SweepJson
from kdrun.results import tested
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.plots.sweep import plot_sweep
from kdrun.results.report import run as one
from kdrun.results.report.page import Block, Page, Picture, Section
from kdrun.results.runs import UNFINISHED, Run, short
from kdrun.results.sweep.sweep import every_lane
from kdrun.results.sweep.table import sweep_table
from kdrun.results.tables import Sentences, Table
from kdrun.store import write_atomic
from kdrun.version import __version__

NAME = "report.html"


def write_run_page(folder: Path, comparison: Comparison, target: Path | None = None) -> Path:
    """Write the page of one run, whose comparison is at hand, into its folder or into `target`."""
    target = target or folder
    sections = [
        *one.run_sections(comparison, folder, target),
        *_provenance(comparison),
    ]
    return _write(target, _name(folder, comparison.record), comparison.verdict().parts, sections,
                  facts=one.facts(comparison))  # fmt: skip


def write_sweep_page(folder: Path, store: Path, target: Path | None = None) -> Path:
    """Write the page of a sweep: its table and picture, what failed and why, and all of the chosen cell.

    Raises ValueError where the sweep's own file is missing or damaged.
    """
    target = target or folder
    sweeps = every_lane(folder)
    first = sweeps[0]
    table = sweep_table(sweeps)
    drawn = plot_sweep(sweeps, target)
    pictures = [Picture(drawn, "accuracy over what was swept")] if drawn else []
    sections = [Section("Sweep", [*pictures, one.untitled(table)])]
    best = first.best or (first.done[0] if len(first.done) == 1 else None)
    warnings = _unfinished([cell.run for cell in first.cells])
    facts: list[tuple[str, str]] = [("command", str(first.record.get("command", "–")))]
    if best is not None and (comparison := comparison_of(best.run, store)) is not None:
        chosen = best.name or "the only cell"
        chosen += f" ({first.lane})" if len(sweeps) > 1 else ""
        about = [*one.run_sections(comparison, best.run.folder, target), *_provenance(comparison)]
        sections += [replace(section, title=f"{section.title}: {chosen}") for section in about]
        facts = [*facts, ("the chosen cell", chosen), *one.facts(comparison)[1:]]
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
        facts += [] if known is None else one.facts(known)[2:]  # versions and devices
    sections += _failures([cell.run for cell in first.cells])
    return _write(target, _name(folder, first.record), table.titles, sections, warnings, facts)


def write_collection_page(
    runs: Sequence[Run], table: Table, target: Path, pictures: Sequence[Picture] = (), extra: Sequence[Table] = ()
) -> Path:
    """Write the page of many runs: their table, pictures over all of them, each one's verdict and table, failures."""
    sections = [Section("All runs", [one.untitled(table), *extra, *pictures])]
    verdicts = tested.verdicts(runs)
    for run in runs:
        if run.comparison is not None:
            title = f"{short(run.name)}: {run.typed or run.choice('dataset')}"
            sections.append(Section(title, _stored(run, verdicts[run.folder]), folded=True))
    sections += _failures(runs)
    # a sweep's cells have one command
    facts = list({short(run.name).partition("/")[0]: str(run.record.get("command", "–")) for run in runs}.items())
    return _write(target, "Report", table.titles, sections, _unfinished(runs), facts)


def comparison_of(run: Run, store: Path) -> Comparison | None:
    """Return a run's comparison with all that its artifacts hold; None where they are gone, or there are none."""
    folders = [store / str(used["folder"]) for used in run.record.get("artifacts") or []]
    if not folders or not all((folder / "result.json").is_file() for folder in folders):
        return None
    return Comparison(folders, run.record)


def _provenance(comparison: Comparison) -> list[Section]:
    return [
        Section("Where every number comes from", one.sources(comparison), folded=True),
        Section("All settings", one.settings(comparison.record), folded=True),
    ]


def _stored(run: Run, verdicts: Sequence[str]) -> list[Block]:
    """Return a finished run's verdicts with its table, as its comparison.json has it."""
    assert run.comparison is not None
    kept = run.comparison.get("table")
    if not kept:
        return [*verdicts]
    rows = [[str(row.get(c, "–")) for c in kept["columns"]] for row in kept["rows"]]
    return [*verdicts, Table(kept["columns"], rows, "", kept.get("notes", ()))]


def _unfinished(runs: Sequence[Run]) -> list[str]:
    """Warn of what is missing."""
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
    """List what has no numbers, or not all, with the reason."""
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
