"""kdrun report: any runs and sweeps in one table and on one page, read from what they left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdrun import config
from kdrun.command.listings import words
from kdrun.results.collect import brief, collected, words_of_all, write_report
from kdrun.results.networks import StoredNetwork
from kdrun.results.runs import Run, short
from kdrun.results.tables import Table

if TYPE_CHECKING:
    from kdrun.results.report.page import Picture

LONGEST = 24  # characters of what was typed that a picture has room for beside a point


def main(rest: Sequence[str]) -> int:
    """Collect, print and write the table, and draw the page."""
    asked = words("report", rest, "paths", outputs=True)
    outputs = Path(asked.outputs).expanduser()
    target = Path(asked.to) if asked.to else outputs / "report"
    found = collected(asked.paths, outputs)
    table = write_report(found, target, _columns(asked.columns), outputs)
    print(brief(table).to_text())
    page = _page(found, table, outputs, target)
    print(f"\nresults: {target}, to look at: {page}")
    return 0


def _columns(typed: str) -> list[str]:
    """Read --columns a,b. Raises ValueError for a word that names no column."""
    words = [word for word in typed.split(",") if word]
    if problems := config.unknown_columns("--columns", words):
        raise ValueError("; ".join(problems))
    return words


def _page(found: Sequence[Run], table: Table, outputs: Path, target: Path) -> Path:
    """Write the page of the one run or the one sweep that was named, or of all of them together."""
    from kdrun.results.report import write

    sweeps = {run.folder.parent for run in found if (run.folder.parent / "sweep.json").is_file()}
    if len(found) == 1 and (comparison := write.comparison_of(found[0], found[0].store(outputs))) is not None:
        return write.write_run_page(found[0].folder, comparison, target)
    if len(sweeps) == 1 and all(run.folder.parent in sweeps for run in found):
        known = next((run for run in found if run.comparison is not None), found[0])
        return write.write_sweep_page(sweeps.pop(), known.store(outputs), target)
    return write.write_collection_page(found, table, target, _pareto(found, outputs, target))


def _pareto(found: Sequence[Run], outputs: Path, target: Path) -> list[Picture]:
    """Draw accuracy over cost for all networks of the runs that are still in the store, each data set by itself."""
    from kdrun.results.plots.pareto import plot_pareto_by_data
    from kdrun.results.report.page import Picture

    groups = []
    typed = told_apart(found)
    for run in found:
        for name, (row, _) in run.trainings().items():
            folders = [run.store(outputs) / str(p["folder"]) for p in (row or {}).get("points", ()) if p.get("folder")]
            networks = [StoredNetwork.read(folder) for folder in folders if (folder / "result.json").is_file()]
            if row is not None and networks:
                label = f"{name} {row['model']}" + f" {typed[run.name]}" * (row["role"] == "student")
                groups.append((label.strip(), str(row["role"]), networks))
    return [Picture(path, f"accuracy over cost on {on}") for on, path in plot_pareto_by_data(groups, target)]


def told_apart(found: Sequence[Run]) -> dict[str, str]:
    """Return by its name what was typed for each run and not for all, or the short name where that is too long."""
    words = {run.name: list(map(str, run.record.get("overrides") or [])) for run in found}
    shared = words_of_all(list(words.values()))
    said = {name: " ".join(word for word in typed if word not in shared) for name, typed in words.items()}
    return {name: text if len(text) <= LONGEST else short(name) for name, text in said.items()}
