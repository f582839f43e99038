"""Write report.html for a run, for a sweep, or for any number of both, finished or not; index.html for all of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from kdrun.files import write_atomic
from kdrun.records import RunJson, SweepJson
from kdrun.results import tested
from kdrun.results.collect import words_of_all
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.networks import open_networks
from kdrun.results.plots.sweep import plot_sweep
from kdrun.results.report import run as run_page
from kdrun.results.report.page import Block, Link, Page, Picture, Searchable, Section
from kdrun.results.runs import UNFINISHED, Run, n_of, number, short
from kdrun.results.sweep.effects import effects_table, everywhere
from kdrun.results.sweep.sweep import Sweep, every_lane
from kdrun.results.sweep.table import sweep_table
from kdrun.results.tables import Sentences, Table, difference_cells, per_cent
from kdrun.version import __version__

NAME = "report.html"
CHOICES = ("verb", "dataset", "model", "loss", "status")  # columns with few values, which get a menu


def write_run_page(folder: Path, comparison: Comparison, target: Path | None = None) -> Path:
    """Write the page of one run into its folder or into `target`."""
    target = target or folder
    sections = [*run_page.run_sections(comparison, folder, target), *_provenance(comparison)]
    page = Page(run_page.headline(comparison, folder), comparison.verdict().parts, sections,
                facts=[("run", folder.name), *run_page.facts(comparison)],
                command=_command(comparison.record), name=short(folder.name))  # fmt: skip
    return _write(target, page)


def write_sweep_page(
    folder: Path, store: Path, target: Path | None = None, sweeps: Sequence[Sweep] | None = None
) -> Path:
    """Write the page of a sweep: its table and picture, the page of the chosen cell, and what failed and why.

    `sweeps` is the folder's content, if it was read. Raise ValueError if sweep.json is missing or damaged.
    """
    target = target or folder
    sweeps = sweeps or every_lane(folder)
    first = sweeps[0]
    table = sweep_table(sweeps)
    drawn = plot_sweep(sweeps, target)
    pictures = [Picture(drawn, "accuracy over the swept settings")] if drawn else []
    sections = [Section("Sweep", [*pictures, run_page.untitled(table)])]
    if (effects := effects_table(sweeps)) is not None:
        sections += [
            Section(effects.title, [run_page.untitled(everywhere(effects))]),
            Section(f"{effects.title}, and where", [run_page.untitled(effects)], folded=True),
        ]
    best = first.best or (first.done[0] if len(first.done) == 1 else None)
    warnings = _unfinished([cell.run for cell in first.cells])
    facts: list[tuple[str, str]] = [("sweep", folder.name)]
    if best is not None and (comparison := comparison_of(best.run, store)) is not None:
        chosen = best.name or "the only cell"
        chosen += f" ({first.lane})" if len(sweeps) > 1 else ""
        about = [*run_page.run_sections(comparison, best.run.folder, target), *_provenance(comparison)]
        sections += [replace(section, title=f"{section.title}: {chosen}") for section in about]
        facts = [*facts, ("chosen cell", chosen), *run_page.facts(comparison)]
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
        facts += [] if known is None else run_page.facts(known)[1:]  # versions and devices
    sections += _failures([cell.run for cell in first.cells])
    page = Page(_headline(sweeps), table.titles, sections, warnings, facts=facts, command=_command(first.record),
                name=short(folder.name))  # fmt: skip
    return _write(target, page)


def write_collection_page(
    runs: Sequence[Run], table: Table, target: Path, pictures: Sequence[Picture] = (), extra: Sequence[Table] = ()
) -> Path:
    """Write the page of many runs: a table and pictures of all, and failures.

    Each run links to its own page; a run without a page is included with its verdict and table.
    """
    known = {run.name: run for run in runs}
    rows = [[_linked(known.get(row[0]), short(row[0]), target), *row[1:]] for row in table.rows]
    linked = replace(run_page.untitled(table), rows=rows)
    sections = [Section("All runs", [Searchable(linked, CHOICES), *extra, *pictures])]
    verdicts = tested.verdicts(runs)
    for run in runs:
        if run.comparison is not None and page_of(run) is None:
            title = f"{short(run.name)}: {run.typed or run.choice('dataset')}"
            sections.append(Section(title, _stored(run, verdicts[run.folder]), folded=True))
    sections += _failures(runs)
    # a sweep's cells share one command
    facts = list({short(run.name).partition("/")[0]: str(run.record.get("command", "–")) for run in runs}.items())
    return _write(target, Page("Report", table.titles, sections, _unfinished(runs), facts=facts))


def write_index(runs: Sequence[Run], outputs: Path, target: Path) -> Path:
    """Write index.html, the page of all runs of an outputs folder in any state, each with a link to its own page."""
    columns = ["run", "student %", "Δ", "95%", "n", "baseline %", "teacher %", "verb", "dataset", "lane", "model",
               "loss", "typed", "status", "reason", "begun"]  # fmt: skip
    rows: list[list[str]] = []
    shared = words_of_all([run.typed.split() for run in runs])
    for run in (lane for one in runs for lane in one.by_lane()):
        main = run.main()
        accuracies = [number(row, "test_accuracy") for row in (run.row("student"), run.row("baseline"), run.teacher())]
        student, *others = map(per_cent, accuracies)
        typed = " ".join(word for word in run.typed.split() if word not in shared)
        begun = str(run.record.get("created", "–"))[:16].replace("T", " ")
        rows.append([_linked(run, short(run.name), target), student, *difference_cells(run.paired), n_of(main), *others,
                     str(run.record.get("verb", "–")).replace("_", " "), run.choice("dataset"), run.lane or "–",
                     str(main["model"]) if main else "–", run.choice("loss") if run.row("student") else "–",
                     typed or "–", run.status, run.reason or "–", begun])  # fmt: skip
    notes = [
        "accuracies on test data, mean ± sample standard deviation over n seeds; Δ: student − baseline, paired by "
        "seed, with its 95% t-interval, not corrected for the number of runs: kdrun report corrects"
    ]
    notes += [f"typed for every run: {' '.join(shared)}"] if shared else []
    table = Table(columns, rows, "", notes).without_empty("lane", "model", "loss", "reason", *columns[1:7])
    states = Counter(run.status for run in runs)
    count = f"{len(runs)} run{'s'[: len(runs) != 1]}: {', '.join(f'{n} {state}' for state, n in states.items())}"
    page = Page(f"All runs of {outputs.absolute().name}", [count], [Section("Runs", [Searchable(table, CHOICES)])])
    return _write(target, page, "index.html")


def page_of(run: Run) -> Path | None:
    """Return the page that shows a run: its own, or for a sweep's cell that of the sweep; None if there is none."""
    places = [run.folder, *([run.folder.parent] if (run.folder.parent / "sweep.json").is_file() else [])]
    return next((place / NAME for place in places if (place / NAME).is_file()), None)


def _linked(run: Run | None, text: str, target: Path) -> str:
    """Return a cell that links from a page in `target` to a run's page, or says that there is none."""
    page = None if run is None else page_of(run)
    if page is None:
        return f"{text} (no page)"
    return Link(text, quote(os.path.relpath(os.fsencode(page.resolve()), os.fsencode(target.resolve()))))


def comparison_of(run: Run, store: Path) -> Comparison | None:
    """Return a run's comparison, computed from its artifacts; None if it has none, or if one is gone or damaged."""
    folders = [store / str(used["folder"]) for used in run.record.get("artifacts") or []]
    if not folders or len(open_networks(folders).networks) < len(set(folders)):
        return None
    return Comparison(folders, run.record)


def _provenance(comparison: Comparison) -> list[Section]:
    return [
        Section("Sources of the numbers", run_page.sources(comparison), folded=True),
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
            f"Partial: {len(waiting)} of {len(runs)} not finished ({names}); the same command resumes them."
        )
    if failed:
        warnings.append(f"{len(failed)} of {len(runs)} failed; see the reasons at the end of the page.")
    return warnings


def _failures(runs: Sequence[Run]) -> list[Section]:
    """Return the section of runs that are not done, with the reasons."""
    rows = [[_called(run), run.status, run.reason or "–"] for run in runs if run.status != "done"]
    return [Section("Unfinished and failed", [Table(["run", "status", "reason"], rows)])] if rows else []


def _called(run: Run) -> str:
    return run.typed or short(run.name)


def _headline(sweeps: Sequence[Sweep]) -> str:
    """Return the title of a sweep's page."""
    first = sweeps[0]
    rows = [row for sweep in sweeps for cell in sweep.done if (row := cell.run.row(sweep.role)) is not None]
    if not rows:
        return f"{len(first.cells)} cells over {' and '.join(first.keys)}"
    loss = "" if "loss" in first.keys else first.done[0].run.choice("loss")
    about = loss if first.role == "student" else first.role
    datasets = [row["dataset"] for row in rows]
    return run_page.title(
        [row["model"] for row in rows], datasets, about, max(row["asked"] for row in rows), first.keys
    )


def _command(record: RunJson | SweepJson) -> str:
    return str(record.get("command", "kdrun"))


def _write(target: Path, page: Page, name: str = NAME) -> Path:
    sentences = [s for part in page.verdict for s in (part.parts if isinstance(part, Sentences) else [part])]
    page = replace(page, verdict=sentences, made=f"generated by kdrun {__version__}")
    target.mkdir(parents=True, exist_ok=True)
    write_atomic(target / name, page.to_html().encode())
    return target / name
