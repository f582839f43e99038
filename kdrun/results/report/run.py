"""The sections of a run's page: its comparison with all tables and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kdrun.records import RunJson
from kdrun.results.comparison import examples
from kdrun.results.comparison.classes import class_names, class_table
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.measures_tables import measure_tables
from kdrun.results.comparison.missing import missing_table
from kdrun.results.comparison.table import comparison_table
from kdrun.results.cost import machine
from kdrun.results.cost_table import cost_table
from kdrun.results.networks import Row
from kdrun.results.plots.classes import plot_classes, plot_confusion
from kdrun.results.plots.curves import plot_curves
from kdrun.results.plots.kept import checksums, pictures_of
from kdrun.results.plots.pareto import plot_pareto_by_data
from kdrun.results.plots.reliability import plot_reliability
from kdrun.results.plots.robustness import plot_robustness
from kdrun.results.report.images import CHANGED, MISSING, SOFTENED, image_blocks
from kdrun.results.report.page import Block, Code, Picture, Section
from kdrun.results.robustness.robustness import measured_robustness
from kdrun.results.robustness.table import robustness_table
from kdrun.results.runs import MAIN, Run
from kdrun.results.tables import Table

# keys that differ when the same command is typed again, and the artifacts, which the rows have
ASIDE = ("command", "created", "status", "reason", "wanted", "artifacts", "process", "schema", "checksum")
ALT = {
    "curves": "accuracy and loss over epochs",
    "classes": "errors per class in per cent",
    "confusion": "confusion matrices",
    "reliability": "accuracy over confidence",
}


def run_sections(comparison: Comparison, folder: Path, target: Path) -> list[Section]:
    """Draw a run's pictures into `target`, and return the sections of its page; `folder` is the run's own."""
    with pictures_of(_made_of(comparison, folder), _store(comparison), comparison.config.get("report")):
        return _sections(comparison, folder, target)


def _sections(comparison: Comparison, folder: Path, target: Path) -> list[Section]:
    drawn, images = draw(comparison, target), image_blocks(comparison, folder, target)
    classes, missing = class_table(comparison), missing_table(comparison)
    sections = [
        Section("Comparison", [untitled(comparison_table(comparison))]),
        Section("Training", _pictures(drawn, "curves")),
        Section("Missing classes", [*([missing] if missing else []), *images.get(MISSING, [])]),
        Section(
            "Errors per class",
            [*_pictures(drawn, "classes"), *([classes] if classes else []), *_pictures(drawn, "confusion")],
        ),
        Section("Calibration, fidelity, convergence", [*measure_tables(comparison), *_pictures(drawn, "reliability")]),
        Section(CHANGED, images.get(CHANGED, [])),
        Section(SOFTENED, images.get(SOFTENED, [])),
        Section("Robustness", _robustness(comparison, target)),
        Section("Cost", _cost(comparison, target)),
    ]
    return [section for section in sections if section.blocks]


def _made_of(comparison: Comparison, folder: Path) -> object:
    """Return all that a run's pictures show, files by their checksums; a result has the checksums of its artifact."""
    record = {key: value for key, value in comparison.record.items() if key not in ASIDE}
    networks = [
        [row.role, row.label, row.lane, network.result, checksums((network.folder / "measured").glob("*.json"))]
        for row in comparison.rows
        if not row.of
        for network in row.networks
    ]
    return ["run", record, networks, checksums([folder / examples.FILE])]


def _store(comparison: Comparison) -> Path | None:
    return next((m.folder.parent for row in comparison.rows if not row.of for m in row.networks), None)


def untitled(table: Table) -> Table:
    """Return the table without its title, which stands at the top of the page."""
    return Table(table.columns, table.rows, "", table.notes, table.sources)


def draw(comparison: Comparison, target: Path) -> dict[str, Path]:
    """Draw every picture that a run has numbers for; of several students only the first."""
    rows = shown(comparison)
    studied = {name: comparison.studied[row] for name, row in rows.items()}
    names = class_names(comparison) if any(row.finished for row in rows.values()) else []
    pictures = {
        "curves": plot_curves(rows, target),
        "classes": plot_classes(studied, names, target),
        "confusion": plot_confusion(studied, names, target),
        "reliability": plot_reliability(studied, target),
    }
    return {name: path for name, path in pictures.items() if path is not None}


def _robustness(comparison: Comparison, target: Path) -> list[Block]:
    """Return table and pictures of robustness; nothing if it was not measured."""
    known = {m.folder.name: m.folder for row in comparison.rows if not row.of for m in row.networks}
    artifacts = [known[str(used["folder"])] for used in comparison.record.get("artifacts") or []]
    measured = measured_robustness(artifacts, comparison.record)
    if measured is None:
        return []
    pictures = [Picture(path, "accuracy under corruptions and attacks") for path in plot_robustness(measured, target)]
    return [robustness_table(measured), *pictures]


def _cost(comparison: Comparison, target: Path) -> list[Block]:
    """Return table and pictures of cost; nothing if no latency was measured."""
    rows = [row for row in comparison.rows if not row.of]
    where = machine([row.networks for row in rows])
    if where is None:
        return []
    groups = [(f"{comparison.names[row]} {row.model}", row.role, row.finished) for row in rows]
    drawn = [Picture(path, f"accuracy over cost on {name}") for name, path in plot_pareto_by_data(groups, target)]
    return [cost_table(rows, [where]), *drawn]


def shown(comparison: Comparison) -> dict[str, Row]:
    """Return the rows that pictures show side by side, by name: the teacher, the baseline, the student."""
    lane = next(iter(comparison.lanes), None)
    wanted = [comparison.towards if comparison.same_test or lane is None else None]
    wanted += [] if lane is None else [lane.baseline, lane.direct, lane.student]
    return {comparison.names[row]: row for row in wanted if row is not None and row.finished}


def _pictures(drawn: Mapping[str, Path], *names: str) -> list[Block]:
    return [Picture(drawn[name], ALT[name]) for name in names if name in drawn]


def title(models: Iterable[str], datasets: Iterable[str], about: str, seeds: int, over: Sequence[str] = ()) -> str:
    """Return a page's title: `digits_student on digits: kd, 3 seeds, over T and alpha`."""
    networks, images = list(dict.fromkeys(models)), list(dict.fromkeys(datasets))
    words = " and ".join(networks) if len(networks) < 3 else f"{len(networks)} networks"
    words += f" on {' and '.join(images) if len(images) < 3 else f'{len(images)} data sets'}"
    details = [about.strip("–"), f"{seeds} seed{'s'[: seeds != 1]}", f"over {' and '.join(over)}" if over else ""]
    return f"{words}: {', '.join(filter(None, details))}"


def headline(comparison: Comparison, folder: Path) -> str:
    """Return the title of a run's page."""
    role = next(role for role in (*MAIN, comparison.rows[0].role) if any(row.role == role for row in comparison.rows))
    rows = [row for row in comparison.rows if row.role == role]
    about = Run("", folder, comparison.record).choice("loss") if role == "student" else role
    datasets = [str(network.result["dataset"]) for row in rows for network in row.networks[:1]]
    return title([row.model for row in rows], datasets, about, max(len(row.networks) for row in rows))


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """Return how the run was made: the objective, when it started, versions and devices."""
    record = comparison.record
    surroundings = {m.environment(): None for row in comparison.rows for m in row.finished if not row.of}
    return [
        ("objective", str(record.get("formula") or "–")),
        ("kdrun", str(record.get("kdrun", "–"))),
        ("started", str(record.get("created", "–"))),
        *(("environment", environment) for environment in surroundings),
    ]


def sources(comparison: Comparison) -> list[Block]:
    """Return a table of every network's folder in the store with the command that made it."""
    lines = [
        [comparison.names[row], str(m.seed), str(m.result["fingerprint"]), m.folder.name, str(m.result["command"])]
        for row in comparison.rows
        if not row.of
        for m in row.networks
    ]
    return [Table(["role", "seed", "fingerprint", "folder in store/", "command"], lines)]


def settings(record: RunJson) -> list[Block]:
    """Return the composed configuration as YAML."""
    import yaml

    return [Code(yaml.safe_dump(dict(record.get("config") or {}), sort_keys=False, allow_unicode=True))]
