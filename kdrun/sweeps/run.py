"""Hydra's side: running a verb's task, and what a sweep leaves when it ends, whichever way it ends."""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from kdrun import config
from kdrun.command import plugins
from kdrun.records import CellJson, SweepJson

log = logging.getLogger(__name__)
PATIENCE_SECONDS = 10.0  # for cells side by side to save, once a signal has come

# The sweep that this process runs, filled in by the callback, which alone learns the sweep's folder.
_running: ContextVar[dict[str, Any] | None] = ContextVar("running", default=None)


def run(verb: str, words: Sequence[str], cells: Sequence[Sequence[str]] | None, *, searched: bool = False) -> int:
    """Let Hydra run the verb and give its exit code; `cells` holds the overrides of each cell of a sweep.

    The cells of a search are known as they come. A sweep's table is written also when a cell fails or a signal
    comes. Hydra's own 1 means, after the preflight, a failed run: it becomes 3.
    """
    sweep = None if cells is None else {"cells": [list(c) for c in cells], "searched": searched, "elsewhere": False}
    token = _running.set(sweep)
    interrupt = signal.getsignal(signal.SIGINT)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM is as good as Ctrl-C
    code = 3
    try:
        try:
            hydra_main(verb, words)
            code = 0
        except SystemExit as stop:
            code = 3 if stop.code == 1 else int(stop.code or 0)
        except KeyboardInterrupt:
            code = 75
        if sweep is not None and "folder" in sweep:
            code = _close(sweep, code)
    except KeyboardInterrupt:  # a second one, while the table is written
        code = 130
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, before)
        _running.reset(token)
    return code


def hydra_main(verb: str, words: Sequence[str]) -> None:
    """Run `hydra.main` for one verb, with `words` as its command line."""
    sys.argv = ["kdrun", *words]
    hydra.main(version_base="1.3", config_path=str(config.CONF), config_name=verb)(_Task(verb))()


@dataclass(frozen=True)
class _Task:
    """What Hydra runs: a verb, imported late. A class, so that it reaches processes and machines of other launchers."""

    verb: str

    def __call__(self, cfg: DictConfig) -> float | None:
        if (sweep := _running.get()) is not None:
            log.info("%s", _which_cell(sweep))
        result: float | None = importlib.import_module(f"kdrun.verbs.{self.verb}").main(cfg)
        return result


def _which_cell(sweep: dict[str, Any]) -> str:
    """Return which cell of how many begins, and what sets it apart."""
    hydra_cfg = HydraConfig.get()
    number = int(hydra_cfg.job.num)
    if not sweep["searched"]:
        return f"cell {number + 1} of {len(sweep['cells'])}: {' '.join(sweep['cells'][number])}"
    tried = [word for word in hydra_cfg.overrides.task if word not in sweep["typed"]]
    return f"trial {number + 1} of {hydra_cfg.sweeper.get('n_trials', '…')}: {' '.join(tried)}"


class SweepCallback(Callback):
    """Writes down what a sweep is about to do, as soon as Hydra has chosen its folder."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write sweep.json with every cell waiting."""
        sweep = _running.get()
        if sweep is None:
            return
        sweep["folder"] = Path(str(config.hydra.sweep.dir)).absolute()
        sweep["outputs"] = Path(str(config.outputs))
        sweep["folder"].mkdir(parents=True, exist_ok=True)
        sweep["verb"] = str(config.hydra.job.name)
        sweep["typed"] = list(OmegaConf.to_container(config.hydra.overrides.task))  # type: ignore[arg-type]
        sweep["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        _write(sweep, "running")
        if plugins.side_by_side(config.hydra):
            signal.signal(signal.SIGINT, _stop_all)
            signal.signal(signal.SIGTERM, _stop_all)
        sweep["elsewhere"] = plugins.elsewhere(config.hydra)


def _stop_all(number: int, frame: FrameType | None) -> None:
    """Let the cells that run side by side end their step and save, then stop; a second signal does not wait.

    They hear SIGTERM from here alone: Ctrl-C, which reaches them as well, they ignore.
    """
    import psutil

    sweep = _running.get()
    assert sweep is not None
    if sweep.get("stopping"):
        raise SystemExit(130)
    sweep["stopping"] = True
    _write(sweep, "interrupted")  # cells that have not begun read it
    for child in psutil.Process().children():
        child.terminate()
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and any(cell["status"] == "running" for cell in _cells(sweep)):
        time.sleep(0.05)
    raise KeyboardInterrupt


def _write(sweep: dict[str, Any], status: str) -> None:
    from kdrun import process
    from kdrun.store import write_atomic

    record: SweepJson = {
        "verb": sweep["verb"],
        "command": os.environ.get("KDRUN_COMMAND", "kdrun"),
        "created": sweep["created"],
        "status": status,
        "process": process.this(),
        "overrides": sweep["typed"],
        "searched": sweep["searched"],
        "notes": json.loads(os.environ.get("KDRUN_NOTES", "[]")),
        "cells": _cells(sweep),
    }
    write_atomic(sweep["folder"] / "sweep.json", (json.dumps(record, indent=2) + "\n").encode())


def _cells(sweep: dict[str, Any]) -> list[CellJson]:
    """Return all cells with their states; of a search those that have begun."""
    from kdrun.results.runs import begun_cells

    if sweep["searched"]:
        return begun_cells(sweep["folder"])
    return [_cell(sweep["folder"], number, overrides) for number, overrides in enumerate(sweep["cells"])]


def _cell(folder: Path, number: int, overrides: list[str]) -> CellJson:
    try:
        run = json.loads((folder / str(number) / "run.json").read_text())
    except (OSError, ValueError):
        run = {"status": "waiting", "reason": None}
    return {"number": number, "overrides": overrides, "status": run["status"], "reason": run["reason"]}


def _page(sweep: dict[str, Any]) -> None:
    """Write the sweep's page, unless one of its cells was told not to."""
    from kdrun.results.report.write import write_sweep_page
    from kdrun.results.runs import read_sweep

    runs = [run for run in read_sweep(sweep["folder"])[1] if run.record.get("config")]
    if runs and all(run.record["config"].get("report") for run in runs):
        path = write_sweep_page(sweep["folder"], runs[0].store(sweep["outputs"]))
        log.info("drawing %s", os.path.relpath(path))


def _close(sweep: dict[str, Any], code: int) -> int:
    """Write the sweep's table and picture, and settle the exit code."""
    from kdrun.lifecycle.task import leave_nothing
    from kdrun.results.sweep.write import write_sweep
    from kdrun.store import CannotWrite

    if code == 0 and not any((sweep["folder"] / str(cell["number"])).exists() for cell in _cells(sweep)):
        leave_nothing(sweep["folder"], sweep["outputs"])  # a plan: no cell left anything either
        return 0
    states = [cell["status"] for cell in _cells(sweep)]
    if code in (0, 3) and "interrupted" in states:
        code = 75
    if code == 0 and any(state != "done" for state in states):
        code = 3
    if code == 75 and sweep["elsewhere"]:
        print("kdrun: what was submitted goes on; the same command waits for it, finds what is done, trains the rest")
    try:
        _write(sweep, {0: "done", 75: "interrupted"}.get(code, "failed"))
        if sweep["verb"] not in config.MEASURING:  # whose cells have tables of their own
            print(write_sweep(sweep["folder"]))
            _page(sweep)
    except CannotWrite as error:
        print(f"kdrun: {error}", file=sys.stderr)
        return 3
    print(f"results: {os.path.relpath(sweep['folder'])}")
    return code
