"""The table of robustness, and the files in a run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdrun.config import Robustness
from kdrun.records import RunJson
from kdrun.results.networks import Row
from kdrun.results.plots.robustness import plot_robustness
from kdrun.results.robustness.robustness import ATTACKED, CORRUPTED, RobustnessComparison, data_of, lines
from kdrun.results.tables import Table, difference_cells, per_cent, write_json, write_tables


def robustness_table(comparison: RobustnessComparison, command: str = "") -> Table:
    """Return the table: a line for each kind of change, a column for each row of networks."""
    rows = [row for row in comparison.rows if comparison.measured(row)]
    several = len(comparison.pairs) > 1
    first = CORRUPTED if comparison.how.corruptions else ATTACKED
    tested = [pair for pair in comparison.pairs if comparison.difference(pair, first) is not None]
    columns = ["images", *(f"{comparison.names[row]} %" for row in rows)]
    for pair in tested:
        columns += [f"Δ {pair.name}" if several else "Δ base", f"95% {pair.name}" if several else "95%"]
    body = []
    for line in lines(next(iter(comparison.measurements.values()))["accuracy"], comparison.how):
        cells = [line, *(per_cent(comparison.summary(row, line)) for row in rows)]
        for pair in tested:
            cells += difference_cells(comparison.difference(pair, line))
        body.append(cells)
    table = Table(
        columns, body, comparison.verdict(), _notes(comparison, rows), [f"command: {command}"] * bool(command)
    )
    return table.without_empty(*(column for column in columns if column.startswith("95%")))


def _notes(comparison: RobustnessComparison, rows: Sequence[Row]) -> list[str]:
    how = comparison.how
    measurement = next(iter(comparison.measurements.values()))
    counted = measurement["images"]
    notes = []
    if how.corruptions:
        part = "all" if counted["corruptions"] == counted["test"] else f"a stratified subset of {counted['test']:,}"
        notes.append(
            f"{counted['corruptions']:,} test images ({part}), the same corrupted ones for all networks (seed "
            f"{how.seed}); each corruption is the mean over the severities {', '.join(map(str, how.severities))}; "
            "lost: clean − mean"
        )
    if how.fgsm or how.pgd:
        size = f"2.5·ε/{how.pgd_steps}" if how.pgd_step is None else f"{how.pgd_step:g}/255"
        steps = f"; PGD: {how.pgd_steps} steps of {size} from a random start, the last step counts" if how.pgd else ""
        notes.append(
            f"attacks on {counted['attacks']:,} test images, ε in 1/255, through each network's own gradient{steps}"
        )
    if any(len(comparison.measured(row)) > 1 for row in rows):
        notes.append(
            "mean ± sample standard deviation over seeds; Δ base: student − baseline, paired by seed, with its 95% "
            "t-interval; not corrected for the number of rows: the verdict is about the means"
        )
    without = [(row, n) for row in comparison.rows if (n := len(row.networks) - len(comparison.measured(row)))]
    if without:
        notes.append("not measured: " + ", ".join(f"{n} of {_whose(comparison, row)}" for row, n in without))
    return [*notes, f"measured on {', '.join(sorted({str(f['device']) for f in comparison.measurements.values()}))}"]


def _whose(comparison: RobustnessComparison, row: Row) -> str:
    other = "" if data_of([row]) == comparison.settings["data"] else " (trained on other data)"
    return comparison.names[row] + other


def write_robustness(
    folder: Path, artifacts: Sequence[Path], record: RunJson, how: Robustness, *, command: str = ""
) -> str:
    """Write robustness.{md,csv,json,tex} and the curves into a folder; return the text for the terminal.

    `record` is the run.json of the run whose artifacts these are. Raise ValueError if nothing was measured.
    """
    comparison = RobustnessComparison(artifacts, record, how)
    if not comparison.measurements:
        raise ValueError(
            "no network of this run was measured for robustness: type kdrun evaluate RUN robustness=standard"
        )
    table = robustness_table(comparison, command)
    write_tables(folder, "robustness", table)
    write_json(folder / "robustness.json", {**comparison.data(), "table": table.to_json()})
    plot_robustness(comparison, folder)
    return table.to_text("robustness.md has them")
