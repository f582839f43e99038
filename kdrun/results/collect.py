"""Collect runs: list those under outputs/, compare two, put many into one table. Only result files are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdrun.checks import typed_path
from kdrun.config import MEASURING
from kdrun.results import columns as extra
from kdrun.results import statistics, tested
from kdrun.results.evidence import Evidence
from kdrun.results.find import find_folder, find_run
from kdrun.results.networks import open_networks
from kdrun.results.points import write_points
from kdrun.results.runs import Run, all_runs, listed, n_of, number, read_run, reasons, short
from kdrun.results.tables import Sentences, Table, difference_cells, p_cell, per_cent, write_json, write_tables
from kdrun.spec import Spec, differences, leaves

ROLES = ("teacher", "baseline", "student")
# settings that change no result
ASIDE = ("outputs", "plan", "force", "workers", "data_timeout", "checkpoint_every", "reported", "verbose", "quiet")


def compare_runs(a: str, b: str, outputs: Path) -> Table:
    """Return a table of how two runs differ: settings, specs and numbers. Raise ValueError if one does not exist."""
    left, right = (read_run(find_run(name, outputs)) for name in (a, b))
    settings = [dict(leaves(run.config)) for run in (left, right)]
    rows = [
        [key, *(str(s.get(key, "–")) for s in settings)]
        for key in dict.fromkeys([*settings[0], *settings[1]])
        if key not in ASIDE and any(settings[0].get(key, _MISSING) != s.get(key, _MISSING) for s in settings)
    ]
    notes: list[str] = []
    trainings = [run.trainings() for run in (left, right)]
    for name in dict.fromkeys(name for by_name in sorted(trainings, key=len, reverse=True) for name in by_name):
        row_and_folder = [by_name.get(name, (None, None)) for by_name in trainings]
        both = zip(row_and_folder, (left, right), strict=True)
        specs = [_spec(folder, run.store(outputs)) for (_, folder), run in both]
        if specs[0] and specs[1]:
            keys = differences(specs[0], specs[1])
            shown = "a different" if keys else "the same"
            rows.append([f"{name}: {shown} training", specs[0].fingerprint, specs[1].fingerprint])
            notes += [f"{name}: the trainings differ in {', '.join(keys)}"] if keys else []
        summaries = [number(row, "test_accuracy") for row, _ in row_and_folder]
        if any(summaries):
            rows.append([f"{name} test %", *(per_cent(s) for s in summaries)])
    deltas = [
        {f"Δ base {lane.lane}".strip(): difference_cells(lane.paired)[0] for lane in run.by_lane()}
        for run in (left, right)
    ]
    for name in dict.fromkeys([*deltas[0], *deltas[1]]):
        shown_deltas = [by_name.get(name, "–") for by_name in deltas]
        rows += [[name, *shown_deltas]] if shown_deltas != ["–", "–"] else []
    rows.append(["status", left.status, right.status])
    return Table(["what differs", left.name, right.name], rows, notes=notes)


def collected(paths: Sequence[str], outputs: Path) -> list[Run]:
    """Return the runs that `paths` name: run folders, sweep folders, folders of them, or names; without any, all runs.

    Raise ValueError if one of `paths` is none of these, or if there are no runs at all.
    """
    if paths:
        named: dict[Path, Run] = {}
        for run in (run for name in paths for run in _named(name, outputs)):
            named.setdefault(run.folder.resolve(), run)
        runs = list(named.values())
    elif not (runs := all_runs(outputs)):
        raise ValueError(f"there are no runs under {outputs.absolute()} yet; start with kdrun distill")
    return [run for run in runs if run.record.get("verb") not in MEASURING]


def write_report(
    runs: Sequence[Run], target: Path, words: Sequence[str] = (), outputs: Path = Path("outputs")
) -> Table:
    """Write a table of runs as report.{md,csv,json,tex} and their points.csv into `target`, and return the table.

    `words` name additional columns. No run is singled out beforehand, so all p-values are corrected for their number.
    """
    table = _report(runs, words, outputs)
    target.mkdir(parents=True, exist_ok=True)
    write_tables(target, "report", table)
    write_points(target, runs)
    verdicts = tested.verdicts(runs)
    records = [
        {"name": r.name, "status": r.status, "reason": r.reason}
        | {key: value for key, value in (r.comparison or {}).items() if key != "schema"}  # comparison.json's own
        | ({"verdict": " ".join(verdicts[r.folder])} if r.comparison else {})
        for r in runs
    ]
    whole = {**table.to_json(), "partial": any(r.comparison is None for r in runs), "runs": records}
    write_json(target / "report.json", whole)
    return table


def _report(runs: Sequence[Run], words: Sequence[str], outputs: Path) -> Table:
    rows = []
    views = [lane for one in runs for lane in one.by_lane()]
    corrected = tested.corrected(views)
    for run, p in zip(views, corrected, strict=True):
        main = run.main()
        loss = run.choice("loss") if run.row("student") or not main else "–"
        accuracies = [number(row, "test_accuracy") for row in (run.teacher(), run.row("baseline"), run.row("student"))]
        rows.append([run.name, run.typed or "–", run.choice("dataset"), run.lane or "–",
                     str(main["model"]) if main else "–", loss, *map(per_cent, accuracies),
                     *difference_cells(run.paired), p_cell(tested.p_value(run)), p_cell(p),
                     n_of(main), run.status])  # fmt: skip
    missing = [run for run in runs if run.comparison is None]
    waiting = sum(run.status in ("running", "waiting") for run in missing)
    parts = [f"{n} {word}" for n, word in ((waiting, "unfinished"), (len(missing) - waiting, "without results")) if n]
    title = Sentences([*_verdict(views, corrected), _runs(runs) + (f"; partial: {', '.join(parts)}" if parts else "")])
    notes = [
        "accuracies on test data, mean ± sample standard deviation over n seeds; "
        "Δ: student − baseline, paired by seed, with its 95% t-interval"
    ]
    columns = ["run", "typed", "dataset", "lane", "model", "loss", *(f"{role} %" for role in ROLES), "Δ", "95%", "p",
               "p Holm", "n", "status"]  # fmt: skip
    if tests := tested.tests(views):
        need = statistics.seeds_needed(tests)
        count = f"{tests} test{'s'[: tests != 1]}"
        notes.append(
            f"p: exact sign-flip; p Holm: corrected for {count}; it can be below 0.05 with {need} or more seeds"
        )
    notes += _lane_note(rows, columns)
    if any((run.teacher() or {}).get("role") == "ensemble" for run in runs):
        notes.append("teacher %: for several teachers, their ensemble's")
    notes += reasons((short(run.name), run) for run in runs)
    used = [run.store(outputs) / a["folder"] for run in runs for a in run.record.get("artifacts") or []]
    notes += open_networks(used).problems
    added = extra.of_records(words, [extra.RecordedRow(run, run.main(), run.teacher()) for run in views], outputs)
    columns[-1:-1] = added.headings
    rows = [[*row[:-1], *more, row[-1]] for row, more in zip(rows, added.cells, strict=True)]
    commands = {short(run.name).partition("/")[0]: run.record.get("command") for run in runs}
    sources = [f"{name}: {command}" for name, command in commands.items() if command]
    return Table(columns, rows, title, [*notes, *added.notes], sources).without_empty("lane", "p", "p Holm")


def _verdict(views: Sequence[Run], corrected: Sequence[float | None]) -> list[str]:
    """Return the verdict on all runs together: the numbers of significant gains and losses, and the largest gain.

    Trainings that several commands share count once; a student that is its baseline does not count.
    """
    held = {tested.pair(run): (run, run.paired, p) for run, p in zip(views, corrected, strict=True) if run.paired}
    held.pop(None, None)
    if len(held) < 2:
        about = [run for run, _, _ in held.values()] or views
        verdicts = {str(run.comparison.get("verdict")) for run in about if run.comparison is not None}
        nothing = "Nothing to test: no run here has a student and a baseline to compare it with."
        return list(verdicts) if len(verdicts) == 1 else [nothing]
    students = f"the {len(held)} students"
    single = sum(p is None for _, _, p in held.values())
    if single == len(held):
        return [f"None of {students} was tested: each has only one finished seed."]
    words = ("has", "was") if single == 1 else ("have", "were")
    untested = f"; {single} {words[0]} only one seed and {words[1]} not tested" if single else ""
    judgements = [(tested.judged(run, p), d.mean, run) for run, d, p in held.values() if p is not None]
    shown = [one for one in judgements if one[0].evidence is Evidence.SHOWN]
    indicative = [one for one in judgements if one[0].evidence is Evidence.INDICATIVE]
    gains = sorted((one for one in shown or indicative if one[0].positive), key=lambda one: -one[1])
    if not shown:
        sentence = f"None of {students} differs significantly from its baseline (Holm-corrected)"
        if indicative:
            sentence += f"; indicative: {len(gains)} may gain and {len(indicative) - len(gains)} may lose"
        return [f"{sentence}{untested}."]
    sentence = f"Of {students}, {len(gains)} gained and {len(shown) - len(gains)} lost significantly against the "
    sentence += "baseline (Holm-corrected)"
    sentence += f"; {len(indicative)} more may have (indicative)" if indicative else ""
    if gains:
        _, mean, run = gains[0]
        sentence += f"; the largest gain: {per_cent(mean, signed=True)} points ({run.typed or short(run.name)})"
    return [f"{sentence}{untested}."]


SETUP = ("dataset", "model", "loss")


def brief(table: Table) -> Table:
    """Fit the report to a terminal: short names, shared settings in the title, no p-values (the files have them)."""
    columns = {column: cells for column, *cells in zip(table.columns, *table.rows, strict=True)}
    for column in ("p", "p Holm"):
        columns.pop(column, None)
    shared = {}
    for column in (*SETUP, "teacher %"):
        values = {cell for cell in columns[column] if cell != "–"}
        if len(values) == 1 and len(table.rows) > 1:
            shared[column] = values.pop()
            del columns[column]
    if common_words := words_of_all([cell.split() for cell in columns["typed"]]):
        shared["typed"] = " ".join(common_words)
        columns["typed"] = [
            " ".join(w for w in cell.split() if w not in common_words) or "–" for cell in columns["typed"]
        ]
    columns["run"] = [short(name) for name in columns["run"]]
    if together := [column for column in SETUP if column in columns]:
        setups = zip(*(columns[c] for c in together), strict=True)
        merged = [" ".join(word for word in setup if word != "–") or "–" for setup in setups]
        columns = {(", ".join(together) if k == together[0] else k): (merged if k == together[0] else v)
                for k, v in columns.items() if k not in together[1:]}  # fmt: skip
    common = ", ".join(f"{column} {cell}" for column, cell in shared.items())
    title = Sentences([*table.titles[:-1], table.titles[-1] + (f". All with: {common}" if common else "")])
    short_table = Table(list(columns), list(zip(*columns.values(), strict=True)), title, table.notes)
    return short_table.without_empty("typed", *SETUP, *(f"{role} %" for role in ROLES), "Δ", "95%")


def words_of_all(typed: Sequence[Sequence[str]]) -> list[str]:
    """Return the settings that were typed for every run, in order; none if there is a single run."""
    first, others = (typed[0], typed[1:]) if typed else ((), ())
    return [word for word in first if "=" in word and all(word in other for other in others)] if others else []


def _named(name: str, outputs: Path) -> list[Run]:
    """Return the runs that one word of `kdrun report` names."""
    folder = typed_path(name).resolve()
    if folder.is_dir() and not any((folder / file).is_file() for file in ("run.json", "sweep.json")):
        sweeps = sorted(file.parent for file in folder.rglob("sweep.json"))
        single = sorted(file.parent for file in folder.rglob("run.json") if file.parent.parent not in sweeps)
        inside = [read_run(run) for run in single] + [cell for sweep in sweeps for cell in listed(sweep)]
        if not inside:
            raise ValueError(f"{name}: holds no runs; kdrun runs lists what there is")
        return inside
    folder = find_folder(name, outputs)
    return [read_run(folder)] if (folder / "run.json").is_file() else listed(folder)


def _runs(runs: Sequence[Run]) -> str:
    return f"{len(runs)} run{'s'[: len(runs) != 1]}"


def _spec(folder: str | None, store: Path) -> Spec | None:
    try:
        return None if folder is None else Spec.from_json((store / folder / "spec.json").read_text())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _lane_note(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> list[str]:
    """Return a note on the column that tells several students of one run apart, if there is one."""
    return ["lane: which student of the run"] if any(row[columns.index("lane")] != "–" for row in rows) else []


_MISSING = object()
