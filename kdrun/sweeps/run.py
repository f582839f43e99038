"""Run a verb's task through Hydra, and write what a sweep leaves, however it ends."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
import psutil
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from kdrun import config, console, sealed, signals
from kdrun.caller import CALLER
from kdrun.command import composing, groups, plugins
from kdrun.command.composing import Loader
from kdrun.command.invocation import Invocation
from kdrun.records import CellJson, RunJson, SweepJson

log = logging.getLogger(__name__)
PATIENCE_SECONDS = 7.0  # that parallel cells have to save, after a signal; the table is written after it


@dataclass
class RunningSweep:
    """A sweep while it runs; its folder and what follows are known once Hydra has begun it."""

    invocation: Invocation
    cells: Sequence[Sequence[str]]  # the overrides of each; not those of a search, which chooses as it goes
    searched: bool
    folder: Path = Path()
    outputs: Path = Path()
    overrides: Sequence[str] = ()  # as typed, for all cells
    created: str = ""
    elsewhere: bool = False  # whether the cells may run on other machines
    wanted: set[str] = field(default_factory=set)  # fingerprints of what its cells need
    planned: dict[str, float] = field(default_factory=dict)  # the same -> estimated seconds, with plan=time
    others: set[int] = field(default_factory=set)  # child processes of a caller in Python, which are none of its cells

    def begin(self, cfg: DictConfig) -> None:
        """Take the folder that Hydra chose, and write sweep.json with every cell waiting."""
        self.folder, self.outputs = Path(str(cfg.hydra.sweep.dir)).absolute(), Path(str(cfg.outputs))
        self.folder.mkdir(parents=True, exist_ok=True)
        if (caller := CALLER.get()) is not None:
            caller.folder = self.folder
        self.overrides = list(OmegaConf.to_container(cfg.hydra.overrides.task))  # type: ignore[arg-type]
        self.created = datetime.now(UTC).isoformat(timespec="seconds")
        self.write("running")
        self.elsewhere = plugins.elsewhere(cfg.hydra)

    def which_cell(self) -> str:
        """Return which cell of how many begins, and what sets it apart."""
        hydra_cfg = HydraConfig.get()
        number = int(hydra_cfg.job.num)
        if not self.searched:
            return f"cell {number + 1} of {len(self.cells)}: {' '.join(self.cells[number])}"
        tried = [word for word in hydra_cfg.overrides.task if word not in self.overrides]
        return f"trial {number + 1} of {hydra_cfg.sweeper.get('n_trials', '…')}: {' '.join(tried)}"

    def write(self, status: str) -> None:
        """Write sweep.json with this status, and those of its cells as they are now."""
        from kdrun import process
        from kdrun.files import write_sealed

        record: SweepJson = {
            "verb": self.invocation.verb,
            "command": self.invocation.command,
            "created": self.created,
            "status": status,
            "process": process.this(),
            "overrides": list(self.overrides),
            "searched": self.searched,
            "notes": list(self.invocation.notes),
            "wanted": sorted(self.wanted),
            "cells": self.states(),
        }
        write_sealed(self.folder / "sweep.json", record)

    def states(self) -> list[CellJson]:
        """Return all cells with their states; of a search those that have begun."""
        from kdrun.results.runs import begun_cells

        if self.searched:
            return begun_cells(self.folder)
        return [_state(self.folder, number, overrides) for number, overrides in enumerate(self.cells)]

    def close(self, code: int) -> int:
        """Write the sweep's table and page, and return the exit code."""
        from kdrun.files import CannotWrite
        from kdrun.lifecycle.task import leave_nothing
        from kdrun.results.sweep.write import write_sweep

        if code == 0 and not any((self.folder / str(cell["number"])).exists() for cell in self.states()):
            leave_nothing(self.folder, self.outputs)  # a plan: no cell left anything either
            if self.planned:
                total = console.seconds(sum(self.planned.values()))
                print(f"\n{len(self.cells)} cells: {len(self.planned)} trainings, about {total} in all")
            return 0
        states = [cell["status"] for cell in self.states()]
        if code in (0, 3) and "interrupted" in states:
            code = 75
        if code == 0 and any(state != "done" for state in states):
            code = 3
        if code == 75 and self.elsewhere:
            print(
                "kdrun: submitted jobs continue; the same command waits for them, reuses what is done, trains the rest"
            )
        try:
            self.write({0: "done", 75: "interrupted"}.get(code, "failed"))
            if self.invocation.verb not in config.MEASURING:  # whose cells have tables of their own
                from kdrun.results.report.write import write_sweep_page
                from kdrun.results.runs import read_sweep

                with console.busy("comparing the cells"):
                    table = write_sweep(self.folder)
                if CALLER.get() is None:
                    print(table)
                runs = [run for run in read_sweep(self.folder)[1] if run.record.get("config")]
                if runs and all(run.record["config"].get("report") for run in runs):
                    with console.busy("drawing the page"):
                        page = write_sweep_page(self.folder, runs[0].store(self.outputs))
                    log.log(console.RESULT, "page: %s", os.path.relpath(page))
        except CannotWrite as error:
            console.failure(f"kdrun: {error}")
            return 3
        if CALLER.get() is None:
            print(f"\nresults: {os.path.relpath(self.folder)}")
        return code


def _state(folder: Path, number: int, overrides: Sequence[str]) -> CellJson:
    status, reason = "waiting", None
    with contextlib.suppress(FileNotFoundError):
        try:
            run = sealed.read(folder / str(number) / "run.json", RunJson)
            status, reason = run["status"], run.get("reason")
        except ValueError as error:
            status, reason = "unreadable", f"run.json is damaged ({error})"
    return {"number": number, "overrides": list(overrides), "status": status, "reason": reason}


KILLED = ("TerminatedWorkerError", "BrokenProcessPool", "UncompletedJobError")  # of joblib and submitit
_LOST = (
    "the process of a cell was killed, perhaps because memory ran out, and parallel cells may have been "
    "stopped; the same command resumes what they were training"
)

_composing = contextlib.ExitStack()  # the line that is shown until Hydra's callback ends it
# The sweep that this process runs: Hydra makes the callback itself, so it cannot be handed the sweep.
_running: ContextVar[RunningSweep | None] = ContextVar("running", default=None)


def want(fingerprints: Iterable[str]) -> None:
    """Record which networks the running sweep needs, before they are trained: `kdrun store prune` keeps them."""
    if (sweep := _running.get()) is not None and sweep.created:
        sweep.wanted.update(fingerprints)
        sweep.write("running")


def run(
    invocation: Invocation,
    words: Sequence[str],
    cells: Sequence[Sequence[str]] | None,
    *,
    searched: bool = False,
    loader: Loader | None = None,
) -> int:
    """Let Hydra run the verb and return its exit code; `cells` holds the overrides of each cell of a sweep.

    `words` are settings, and `loader` has composed them; without one they are a command line on which a flag lets
    Hydra only print its help or the configuration.
    A sweep's table is written also if a cell fails or a signal comes. Hydra's own 1 means, after the preflight,
    a failed run: it becomes 3.
    """
    sweep = None if cells is None else RunningSweep(invocation, cells, searched)
    token = _running.set(sweep)
    code = 3
    try:
        try:
            with _composing:
                if loader is None:
                    hydra_main(invocation, words)
                else:
                    _composing.enter_context(console.busy("composing the configuration"))
                    _run(invocation, words, loader, sweep is not None)
            code = 0
        except SystemExit as stop:
            code = 3 if stop.code == 1 else int(stop.code or 0)
        except KeyboardInterrupt:
            code = 75
        except Exception as error:  # of Hydra or of a launcher: what a cell raises ends in its own record
            if cells is None and isinstance(error, HydraException):  # of a flag that shows something
                raise
            lost = type(error).__name__ in KILLED
            log.error("kdrun: %s", _LOST if lost else f"{type(error).__name__}: {error}", exc_info=not lost)
        if sweep is not None and sweep.created:
            code = sweep.close(code)
    except KeyboardInterrupt:  # while the table is written
        code = signals.INTERRUPTED
    finally:
        _running.reset(token)
    return code


def _run(invocation: Invocation, overrides: Sequence[str], loader: Loader, sweep: bool) -> None:
    """Run a verb, or a sweep of it, as `hydra.main` would, but with what the preflight's loader has composed."""
    sys.argv = ["kdrun", *overrides]
    if CALLER.get() is None:
        gc.freeze()  # what was imported stays: to look for garbage in it takes a third of a finished sweep's time
    mode = "hydra.mode=MULTIRUN" if sweep else "hydra.mode=RUN"
    with composing.hydra_with(loader) as hydra:
        begin = hydra.multirun if sweep else hydra.run
        begin(invocation.verb, VerbTask(invocation), [*overrides, mode])


def hydra_main(invocation: Invocation, words: Sequence[str]) -> None:
    """Run `hydra.main` for one verb, with `words` as its command line, which only shows something."""
    sys.argv = ["kdrun", *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # it would print what a launcher raises, with its traceback, and exit
    hydra.main(version_base="1.3", config_path=str(config.CONF), config_name=invocation.verb)(VerbTask(invocation))()


@dataclass(frozen=True)
class VerbTask:
    """What Hydra runs: a verb, imported late. It can be pickled for cells in other processes and on other machines."""

    invocation: Invocation

    def __call__(self, cfg: DictConfig) -> Any:
        if (sweep := _running.get()) is not None:
            log.log(console.DETAIL, "%s", sweep.which_cell())
        with console.busy("starting"):
            module = importlib.import_module(f"kdrun.verbs.{self.invocation.verb}")
        outcome = module.main(cfg, self.invocation)
        if sweep is not None and isinstance(outcome, dict):
            sweep.planned |= outcome
        return outcome


class SweepCallback(Callback):
    """Records what a command begins: from its folder on it does not leave at once on a signal."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Keep a signal until the verb can record it."""
        _composing.close()
        signals.begin()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write .hydra in Hydra's stead, which would take ${…} in a folder's name for a reference."""
        own: Any = OmegaConf.to_container(config, enum_to_str=True)
        parts = {"hydra": {"hydra": own.pop("hydra")}, "config": own, "overrides": list(config.hydra.overrides.task)}
        folder = groups.output_folder(config.hydra) / ".hydra"
        with contextlib.suppress(OSError):  # run.json comes next, and says what cannot be written
            folder.mkdir(parents=True, exist_ok=True)
            for name, part in parts.items():
                (folder / f"{name}.yaml").write_text(composing.as_yaml(part), encoding="utf-8")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write sweep.json with every cell waiting, as soon as Hydra has chosen the folder."""
        _composing.close()
        if (sweep := _running.get()) is None:
            return
        signals.begin()
        sweep.begin(config)
        signals.begin(raises=not plugins.in_turn(config.hydra))  # else the command only waits for its cells
        if plugins.side_by_side(config.hydra):
            sweep.others = {child.pid for child in psutil.Process().children()}
            signals.on_first(_stop_all)
            _keep_the_tracker()


def _keep_the_tracker() -> None:
    """Start joblib's helper process so that a terminal that closes does not end it before the command."""
    if threading.current_thread() is not threading.main_thread():
        return
    from joblib.externals.loky.backend import resource_tracker

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is ignored stays so in a new program
    resource_tracker.ensure_running()
    signal.signal(signal.SIGHUP, before)


def _stop_all() -> None:
    """Let cells that run in parallel end their step and save.

    They receive SIGTERM from here; Ctrl-C, which reaches them too, they ignore.
    """
    sweep = _running.get()
    assert sweep is not None
    sweep.write("interrupted")  # read by cells that have not begun
    for child in psutil.Process().children():
        if child.pid not in sweep.others:
            child.terminate()
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and any(cell["status"] == "running" for cell in sweep.states()):
        time.sleep(0.05)
