"""kdrun report: show any runs and sweeps in one table and on one page, or list all runs on a page of links."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdrun import checks, config, console
from kdrun.command.listings import words
from kdrun.results.collect import brief, collected, words_of_all, write_report
from kdrun.results.networks import open_networks
from kdrun.results.runs import Run, all_runs, is_sweep, short
from kdrun.results.tables import Table

if TYPE_CHECKING:
    from kdrun.results.report.page import Picture

LONGEST = 24  # characters of typed words that fit beside a point in a plot


def main(rest: Sequence[str]) -> int:
    """Collect, print and write the table, and draw the page."""
    args = words("report", rest, "paths", outputs=True)
    outputs = checks.typed_folder(args.outputs, "outputs=")
    if args.all:
        return _index(args.paths, outputs, checks.typed_folder(args.to, "--to ") if args.to else outputs)
    target = checks.typed_folder(args.to, "--to ") if args.to else outputs / "report"
    with console.busy("reading the runs"):
        runs = collected(args.paths, outputs)
    if why := checks.no_room(target.absolute()):
        raise ValueError(f"{target}: {why}; choose another folder with --to DIR")
    with console.busy("putting them into one table"):
        table = write_report(runs, target, _columns(args.columns), outputs)
    print(brief(table).to_text("report.md has them, and --wide shows them", wide=args.wide))
    with console.busy("drawing the page"):
        page = _page(runs, table, outputs, target)
    print(f"\nresults: {target}, page: {page}")
    return 0


def _index(paths: Sequence[str], outputs: Path, target: Path) -> int:
    """Write the page of all runs, by default into the outputs folder, so that its links survive moving that folder."""
    from kdrun.results.report.write import write_index

    if paths:
        raise ValueError(f"--all takes no PATHS, it shows every run of {outputs}; got {' '.join(paths)}")
    if not (runs := all_runs(outputs)):
        raise ValueError(f"there are no runs under {outputs.absolute()} yet; start with kdrun distill")
    if why := checks.no_room(target.absolute()):
        raise ValueError(f"{target}: {why}; choose another folder with --to DIR")
    page = write_index(runs, outputs, target)
    print(f"{len(runs)} run{'s'[: len(runs) != 1]}, page: {page}")
    return 0


def _columns(typed: str) -> list[str]:
    """Return the columns of --columns a,b. Raise ValueError if a word names no column."""
    words = [word for word in typed.split(",") if word]
    if problems := config.unknown_columns("--columns", words):
        raise ValueError("; ".join(problems))
    return words


def _page(runs: Sequence[Run], table: Table, outputs: Path, target: Path) -> Path:
    """Write the page of a single run or sweep if only that was named, otherwise of all runs together."""
    from kdrun.results.report import write

    sweeps = {run.folder.parent for run in runs if is_sweep(run.folder.parent)}
    if len(runs) == 1 and (comparison := write.comparison_of(runs[0], runs[0].store(outputs))) is not None:
        return write.write_run_page(runs[0].folder, comparison, target)
    if len(sweeps) == 1 and all(run.folder.parent in sweeps for run in runs):
        compared = next((run for run in runs if run.comparison is not None), runs[0])
        return write.write_sweep_page(sweeps.pop(), compared.store(outputs), target)
    return write.write_collection_page(runs, table, target, _pareto(runs, outputs, target))


def _pareto(runs: Sequence[Run], outputs: Path, target: Path) -> list[Picture]:
    """Plot accuracy over cost for the runs' networks that are still in the store, one picture per data set."""
    from kdrun.results.plots.pareto import merged, plot_pareto_by_data
    from kdrun.results.report.page import Picture

    groups, words_of = [], dict[str, str]()
    typed = short_labels(runs)
    for run in runs:
        for name, (row, _) in run.trainings().items():
            folders = [run.store(outputs) / str(p["folder"]) for p in (row or {}).get("points", ()) if p.get("folder")]
            networks = open_networks(folders).networks
            if row is not None and networks:
                label = f"{name} {row['model']}" + f" {typed[run.name]}" * (row["role"] == "student")
                groups.append((label.strip(), str(row["role"]), networks))
                words_of.setdefault(str(networks[0].result["fingerprint"]), typed[run.name])
    once = merged(groups)
    labels = [label for label, _, _ in once]
    named = []
    for label, role, alike in once:  # baselines with equal labels are distinguished by the words of their first run
        words = words_of[str(alike[0].result["fingerprint"])] if labels.count(label) > 1 and role != "student" else ""
        named.append((f"{label} {words}".strip(), role, alike))
    return [Picture(path, f"accuracy over cost on {on}") for on, path in plot_pareto_by_data(named, target)]


def short_labels(runs: Sequence[Run]) -> dict[str, str]:
    """Return for each run name the words not typed for all runs, or the run's short name if they are too long."""
    words = {run.name: list(map(str, run.record.get("overrides") or [])) for run in runs}
    shared = words_of_all(list(words.values()))
    labels = {name: " ".join(word for word in typed if word not in shared) for name, typed in words.items()}
    return {name: text if len(text) <= LONGEST else short(name) for name, text in labels.items()}
