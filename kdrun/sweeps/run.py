"""Run a verb's task through Hydra, and write the record, table and page of a sweep however it ends."""

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
PATIENCE_SECONDS = 7.0  # how long parallel cells may take to save after a signal, before the table is written


@dataclass
class RunningSweep:
    """A sweep while it runs; `folder` and the fields below it are known once Hydra has begun the sweep."""

    invocation: Invocation
    cells: Sequence[Sequence[str]]  # the overrides of each cell; those of a search are chosen only as it runs
    searched: bool
    folder: Path = Path()
    outputs: Path = Path()
    overrides: Sequence[str] = ()  # as typed, for all cells
    created: str = ""
    elsewhere: bool = False  # whether the cells may run on other machines
    wanted: set[str] = field(default_factory=set)  # fingerprints of what its cells need
    planned: dict[str, float] = field(default_factory=dict)  # with plan=time: fingerprint -> estimated seconds
    others: set[int] = field(default_factory=set)  # child processes of a caller in Python that are not its cells

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
        """Return the number of the cell that begins, out of how many, and the words that distinguish it."""
        hydra_cfg = HydraConfig.get()
        number = int(hydra_cfg.job.num)
        if not self.searched:
            return f"cell {number + 1} of {len(self.cells)}: {' '.join(self.cells[number])}"
        tried = [word for word in hydra_cfg.overrides.task if word not in self.overrides]
        return f"trial {number + 1} of {hydra_cfg.sweeper.get('n_trials', '…')}: {' '.join(tried)}"

    def write(self, status: str) -> None:
        """Write sweep.json with this status and the current states of the cells."""
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
        """Return all cells with their states; for a search, only those that have begun."""
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
            if self.invocation.verb not in config.MEASURING:  # cells of measuring verbs have their own tables
                from kdrun.results.report.write import write_sweep_page
                from kdrun.results.sweep.sweep import every_lane

                with console.busy("comparing the cells"):
                    sweeps = every_lane(self.folder)
                    table = write_sweep(self.folder, sweeps)
                if CALLER.get() is None:
                    print(table)
                runs = [run for run in sweeps[0].runs if run.record.get("config")]
                if runs and all(run.record["config"].get("report") for run in runs):
                    with console.busy("drawing the page"):
                        page = write_sweep_page(self.folder, runs[0].store(self.outputs), sweeps=sweeps)
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


KILLED = ("TerminatedWorkerError", "BrokenProcessPool", "UncompletedJobError")  # errors of joblib and submitit
_LOST = (
    "the process of a cell was killed, perhaps because memory ran out, and parallel cells may have been "
    "stopped; the same command resumes what they were training"
)

_composing = contextlib.ExitStack()  # holds the status line that is shown until Hydra's callback closes it
# The sweep that this process runs. A global, because Hydra creates the callback and cannot pass the sweep to it.
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

    `words` are settings that `loader` has composed before. Without a loader they are a command line with a flag that
    makes Hydra only print its help or the configuration.
    A sweep's table is written even if a cell fails or a signal comes. After the preflight, Hydra's exit code 1 means
    a failed run, and 3 is returned.
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
        except Exception as error:  # raised by Hydra or a launcher: errors in a cell are in the cell's own record
            if cells is None and isinstance(error, HydraException):  # raised for a flag that only prints
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
        gc.freeze()  # exempt imported modules from garbage collection: a third of the time of a finished sweep
    mode = "hydra.mode=MULTIRUN" if sweep else "hydra.mode=RUN"
    with composing.hydra_with(loader) as hydra:
        begin = hydra.multirun if sweep else hydra.run
        begin(invocation.verb, VerbTask(invocation), [*overrides, mode])


def hydra_main(invocation: Invocation, words: Sequence[str]) -> None:
    """Run `hydra.main` for one verb, with `words` as a command line that only prints help or the configuration."""
    sys.argv = ["kdrun", *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints a launcher's error with its traceback, and exits
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
    """Hydra callback that records what a command begins; from then on, a signal no longer ends it at once."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hold signals back until the verb can record them."""
        _composing.close()
        signals.begin()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write .hydra in place of Hydra, which would resolve a ${…} in a folder's name as an interpolation."""
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
        signals.begin(raises=not plugins.in_turn(config.hydra))  # parallel cells: the command only waits
        if plugins.side_by_side(config.hydra):
            sweep.others = {child.pid for child in psutil.Process().children()}
            signals.on_first(_stop_all)
            _keep_the_tracker()


def _keep_the_tracker() -> None:
    """Start joblib's resource tracker such that closing the terminal does not end it before the command."""
    if threading.current_thread() is not threading.main_thread():
        return
    from joblib.externals.loky.backend import resource_tracker

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a new process inherits ignored signals
    resource_tracker.ensure_running()
    signal.signal(signal.SIGHUP, before)


def _stop_all() -> None:
    """Stop cells that run in parallel: they finish their step and save.

    They are sent SIGTERM here, and ignore the Ctrl-C that reaches them directly.
    """
    sweep = _running.get()
    assert sweep is not None
    sweep.write("interrupted")  # cells that have not begun read this
    for child in psutil.Process().children():
        if child.pid not in sweep.others:
            child.terminate()
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and any(cell["status"] == "running" for cell in sweep.states()):
        time.sleep(0.05)
