"""kdrun from Python: the commands as functions, and runs as objects.

    result = kdrun.distill("T=4", "alpha=0.9", "seeds=6")   # the words of `kdrun distill T=4 alpha=0.9 seeds=6`
    result.verdict, result.frame(), result.model("student")

A call runs in the caller's process and writes the same files as the command. It raises ValueError for what the command
refuses (exit code 2), RunFailed (3) and Interrupted (75), with the command's whole message. It restores the state of
the process: logging, warnings, signals, random states, Hydra's and torch's settings, matplotlib's backend.
The module is long because runs, sweeps and plans have the same interface, side by side.
"""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdrun import caller, sealed, signals, torchrun
from kdrun.caller import Caller
from kdrun.config import MEASURING
from kdrun.files import RunFailed
from kdrun.records import ComparisonJson, SweepJson, TableJson
from kdrun.results.find import find_folder
from kdrun.results.runs import Run, all_runs, read_run
from kdrun.signals import Interrupted

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import nn

SWEEP_FLAGS = ("-m", "--multirun")


def distill(*settings: str) -> Result:
    """Train a teacher, a baseline and a student if they are missing in the store, and return their comparison.

    `settings` are those of `kdrun distill`, written as on its command line: "T=4", "dataset=fashion_mnist". If they
    make the command a sweep, as some experiments do, the result is a Sweep; with "plan=true" it is a Plan.
    In another thread than the main one, a call cannot be stopped by Ctrl-C.

    Raise ValueError if the settings are refused, RunFailed if a training fails and Interrupted after Ctrl-C. The same
    call then resumes where it was stopped.
    """
    return _call("distill", settings)


def sweep(*settings: str) -> Sweep:
    """Distil once for every combination of settings, as `kdrun distill -m` does, and return the Sweep.

    Several values of a setting are separated by commas: "T=1,2,4,8". Raise the same errors as `distill`.
    """
    result = _call("distill", ["-m", *settings])
    assert isinstance(result, Sweep)
    return result


def train_teacher(*settings: str) -> Result:
    """Train a teacher, or find it in the store, like `kdrun train teacher`. Raise the same errors as `distill`."""
    return _call("train_teacher", settings)


def train_baseline(*settings: str) -> Result:
    """Train the small network without a teacher, or find it in the store, like `kdrun train baseline`.

    Raise the same errors as `distill`.
    """
    return _call("train_baseline", settings)


def runs(outputs: str | os.PathLike[str] | None = None) -> list[Result]:
    """Return the runs and sweeps under an outputs folder, in any state, the newest last."""
    root = _root(outputs)
    folders = [run.folder.parent if "/" in run.name else run.folder
               for run in all_runs(root) if run.record.get("verb") not in MEASURING]  # fmt: skip
    return [_result(folder.resolve()) for folder in reversed(dict.fromkeys(folders))]


def load_run(run: str | os.PathLike[str], outputs: str | os.PathLike[str] | None = None) -> Result:
    """Return a run or sweep by its folder, its name, an unambiguous beginning of its name, or "latest".

    Raise ValueError if there is none.
    """
    return _result(find_folder(os.fspath(run), _root(outputs)))


class Result:
    """A run in any state: its verdict, numbers and networks, all read from the files in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def status(self) -> str:
        """How the run ended (done, failed, interrupted, …), or that it is running."""
        return self._run().status

    @property
    def verdict(self) -> str:
        """What the run shows, in words."""
        return str(self.comparison.get("verdict", ""))

    @property
    def comparison(self) -> ComparisonJson:
        """The content of comparison.json. Raise ValueError if the run has none."""
        run = self._run()
        if run.comparison is None:
            raise ValueError(f"{run.name}: has no comparison; it is {run.state}")
        return run.comparison

    @property
    def report(self) -> Path | None:
        """The page, report.html; None if it was not drawn (report=false)."""
        page = self.folder / "report.html"
        return page if page.is_file() else None

    @property
    def table(self) -> TableJson:
        """The table as it is shown: its cells are text."""
        return self.comparison["table"]

    def frame(self) -> DataFrame:
        """Return the table with exact numbers, as in comparison.csv. Needs pandas."""
        return _frame(self.folder / "comparison.csv")

    def points(self) -> DataFrame:
        """Return every network's numbers, one network per row, as in points.csv. Needs pandas."""
        return _frame(self.folder / "points.csv")

    def model(self, role: str = "student", *, seed: int | None = None) -> nn.Module:
        """Return a trained network as kdrun.load does: from uint8 images (N, C, H, W) to logits.

        `role` is "student", "baseline" or "teacher"; without a `seed`, the first training is used. Raise ValueError if
        the run has no such network.
        """
        from kdrun.export.network import load_trained

        outputs = self._run().config.get("outputs")
        return load_trained(str(self.folder), role, seed=seed, outputs=None if outputs is None else str(outputs))

    def _run(self) -> Run:
        return read_run(self.folder)

    def __str__(self) -> str:
        from kdrun.results.tables import Table

        table = self.table
        rows = [[row.get(column, "") for column in table["columns"]] for row in table["rows"]]
        return Table(table["columns"], rows, table["title"], table["notes"]).to_text("frame() has them")

    def __repr__(self) -> str:
        return f"<kdrun {self.folder.name}: {self.status}>"

    def _repr_html_(self) -> str:
        try:
            table = self.table
        except ValueError as error:
            return f"<p>{html.escape(str(error))}</p>"
        return _html(table)


class Sweep(Result):
    """A sweep in its folder. Comparison and networks are those of the best cell, which is chosen on validation."""

    @property
    def status(self) -> str:
        """How the sweep ended, or that it is running."""
        from kdrun.results.runs import read_sweep

        return str(read_sweep(self.folder)[0]["status"])

    @property
    def record(self) -> SweepJson:
        """The content of sweep.json. Raise ValueError if it is damaged."""
        return sealed.read(self.folder / "sweep.json", SweepJson)

    @property
    def cells(self) -> list[Result]:
        """The runs of its cells that have begun, in order."""
        from kdrun.results.runs import cells_in

        return [Result(cell.folder) for cell in cells_in(self.folder) if (cell.folder / "run.json").is_file()]

    @property
    def best(self) -> Result | None:
        """The run of the cell with the highest validation accuracy; None if none can be chosen."""
        best = self.record.get("best")
        return None if not best else Result(self.folder / str(best["number"]))

    @property
    def verdict(self) -> str:
        """What the sweep shows, in words."""
        return str(self.record.get("verdict", ""))

    @property
    def comparison(self) -> ComparisonJson:
        """The content of the best cell's comparison.json. Raise ValueError if no cell can be chosen."""
        return self._chosen().comparison

    @property
    def table(self) -> TableJson:
        """The sweep's table as it is shown. Raise ValueError if it has none yet."""
        if (table := self.record.get("table")) is None:
            raise ValueError(f"{self.folder.name}: has no table yet; it is {self.status}")
        return table

    def frame(self) -> DataFrame:
        """Return the sweep's table with exact numbers, as in sweep.csv. Needs pandas."""
        return _frame(self.folder / "sweep.csv")

    def model(self, role: str = "student", *, seed: int | None = None) -> nn.Module:
        """Return a trained network of the best cell. Raise ValueError if no cell can be chosen."""
        return self._chosen().model(role, seed=seed)

    def _chosen(self) -> Result:
        if (best := self.best) is None:
            raise ValueError(f"{self.folder.name}: {self.verdict} Take one of its cells")
        return best


class Plan(Sweep):
    """What a command, or a sweep, would train and what it would reuse (plan=true). Nothing was trained or written."""

    def __init__(self, tables: Sequence[TableJson]) -> None:
        super().__init__(Path())
        rows = {row["fingerprint"]: row for table in reversed(tables) for row in table["rows"]}  # cells share some
        seen = dict.fromkeys(row["fingerprint"] for table in tables for row in table["rows"])
        self.trainings = [rows[fingerprint] for fingerprint in seen]
        self._columns = list(tables[0]["columns"])

    @property
    def to_train(self) -> list[dict[str, str]]:
        """The trainings that would be done, with role, model, seed, fingerprint and size as text."""
        return [row for row in self.trainings if row["state"].startswith("to train")]

    @property
    def found(self) -> list[dict[str, str]]:
        """The trainings that would be reused."""
        return [row for row in self.trainings if row not in self.to_train]

    @property
    def status(self) -> str:
        """Always "planned"."""
        return "planned"

    @property
    def verdict(self) -> str:
        """How many trainings are missing, in words."""
        return f"{len(self.to_train)} of {len(self.trainings)} to train; plan=true trains nothing"

    @property
    def record(self) -> SweepJson:
        """Raise ValueError: nothing was trained."""
        raise self._nothing()

    @property
    def cells(self) -> list[Result]:
        """Empty: nothing was trained."""
        return []

    @property
    def best(self) -> Result | None:
        """None: nothing was trained."""
        return None

    @property
    def comparison(self) -> ComparisonJson:
        """Raise ValueError: nothing was trained."""
        raise self._nothing()

    @property
    def report(self) -> Path | None:
        """None: nothing was drawn."""
        return None

    @property
    def table(self) -> TableJson:
        """The trainings as a table of text."""
        return {"title": self.verdict, "columns": self._columns, "rows": self.trainings, "notes": []}

    def frame(self) -> DataFrame:
        """Return the trainings as a table of text. Needs pandas."""
        return _pandas().DataFrame(self.trainings, columns=self._columns)

    def points(self) -> DataFrame:
        """Raise ValueError: nothing was trained."""
        raise self._nothing()

    def model(self, role: str = "student", *, seed: int | None = None) -> nn.Module:
        """Raise ValueError: nothing was trained."""
        raise self._nothing()

    def _nothing(self) -> ValueError:
        return ValueError("plan=true: nothing was trained; call it without")

    def __repr__(self) -> str:
        return f"<kdrun plan: {self.verdict}>"


def _call(verb: str, settings: Sequence[str]) -> Result:
    """Run one command like the command line, but return its result instead of exiting."""
    from kdrun import cli

    _refuse_flags(settings)
    if torchrun.processes() > 1:
        raise ValueError("torchrun started this process: type the command, as in torchrun … -m kdrun distill …")
    error: BaseException | None = None
    with caller.called() as call, signals.embedded():
        try:
            code = cli.composed(verb, list(settings))
        except SystemExit as stop:
            code = int(stop.code or 0)
        except RunFailed as failed:
            code, error = 3, failed
            call.refuse(str(failed))
        except Exception:
            if not signals.received():
                raise
            code = signals.INTERRUPTED  # interrupted code raised some other error
        except KeyboardInterrupt:
            code = signals.INTERRUPTED
    if code:
        raise _error(code, call) from (error or call.cause)
    return Plan(call.plans) if call.plans else _result(call.folder or Path())


def _error(code: int, call: Caller) -> BaseException:
    """Return the exception for an exit code, with the command's message."""
    text = "\n".join(dict.fromkeys(call.errors))
    if code == signals.INTERRUPTED:
        return Interrupted("interrupted: everything so far is saved; the same call goes on from there")
    if code == 2:
        return ValueError(text)
    error = RunFailed(text or f"the command ended with exit code {code}")
    if call.folder is not None and call.folder.is_dir():
        error.add_note(f"saved results: kdrun.load_run({str(call.folder)!r})")
    return error


def _refuse_flags(settings: Sequence[str]) -> None:
    """Raise ValueError for words that are not settings, including flags that print something instead of running."""
    for word in settings:
        if not isinstance(word, str):
            raise ValueError(f"{word!r}: settings are text, as on the command line, such as 'T=4'")
        if word.startswith("-") and word not in SWEEP_FLAGS and not word.startswith("--config-dir="):
            raise ValueError(f"{word}: is a flag of the command line; here are settings, such as 'T=4'")


def _result(folder: Path) -> Result:
    return Sweep(folder) if (folder / "sweep.json").is_file() else Result(folder)


def _root(outputs: str | os.PathLike[str] | None) -> Path:
    return Path(outputs or os.environ.get("KDRUN_OUTPUTS", "outputs")).expanduser()


def _frame(file: Path) -> DataFrame:
    pandas = _pandas()
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file; the run ended, or is still running, without writing it")
    table: DataFrame = pandas.read_csv(file)
    return table


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "data frames need pandas, which is not installed; type pip install 'kdrun[notebook]'", name="pandas"
        ) from None
    return pandas


def _html(table: TableJson) -> str:
    """Return a table as HTML, every cell escaped."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table["columns"])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(row.get(column, ''))}</td>" for column in table["columns"]) + "</tr>"
        for row in table["rows"]
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table["notes"])
    return (
        f"<p><b>{html.escape(table['title'])}</b></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        + (f"<ul>{notes}</ul>" if notes else "")
    )
