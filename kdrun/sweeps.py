"""Hydra's side: running a verb's task, and what a sweep leaves when it ends, whichever way it ends."""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from kdrun import config

log = logging.getLogger(__name__)

# The sweep that this process runs, filled in by the callback, which alone learns the sweep's folder.
_running: ContextVar[dict[str, Any] | None] = ContextVar("running", default=None)


def run(verb: str, words: Sequence[str], cells: Sequence[Sequence[str]] | None) -> int:
    """Let Hydra run the verb and give its exit code; `cells` holds the overrides of each cell of a sweep.

    A sweep's table is written also when a cell fails or a signal comes. Hydra's own 1 means, after the
    preflight, a failed run: it becomes 3.
    """
    sweep: dict[str, Any] | None = None if cells is None else {"cells": [list(c) for c in cells]}
    token = _running.set(sweep)
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
        signal.signal(signal.SIGTERM, before)
        _running.reset(token)
    return code


def hydra_main(verb: str, words: Sequence[str]) -> None:
    """Run `hydra.main` for one verb, with `words` as its command line."""
    sys.argv = ["kdrun", *words]

    def late(cfg: DictConfig) -> None:
        if (sweep := _running.get()) is not None:
            number = int(HydraConfig.get().job.num)
            log.info("cell %d of %d: %s", number + 1, len(sweep["cells"]), " ".join(sweep["cells"][number]))
        importlib.import_module(f"kdrun.verbs.{verb}").main(cfg)

    hydra.main(version_base="1.3", config_path=str(config.CONF), config_name=verb)(late)()


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


def _write(sweep: dict[str, Any], status: str) -> None:
    from kdrun.store import write_atomic

    record = {
        "verb": sweep["verb"],
        "command": os.environ.get("KDRUN_COMMAND", "kdrun"),
        "created": sweep["created"],
        "status": status,
        "overrides": sweep["typed"],
        "cells": [_cell(sweep["folder"], number, overrides) for number, overrides in enumerate(sweep["cells"])],
    }
    write_atomic(sweep["folder"] / "sweep.json", (json.dumps(record, indent=2) + "\n").encode())


def _cell(folder: Path, number: int, overrides: list[str]) -> dict[str, Any]:
    try:
        run = json.loads((folder / str(number) / "run.json").read_text())
    except (OSError, ValueError):
        run = {"status": "waiting", "reason": None}
    return {"number": number, "overrides": overrides, "status": run["status"], "reason": run["reason"]}


def _close(sweep: dict[str, Any], code: int) -> int:
    """Write the sweep's table and picture, and settle the exit code."""
    from kdrun.results.sweep import write_sweep
    from kdrun.store import CannotWrite
    from kdrun.verbs.session import leave_nothing

    if code == 0 and not any((sweep["folder"] / str(number)).exists() for number in range(len(sweep["cells"]))):
        leave_nothing(sweep["folder"], sweep["outputs"])  # a plan: no cell left anything either
        return 0
    states = [_cell(sweep["folder"], n, o)["status"] for n, o in enumerate(sweep["cells"])]
    if code == 0 and any(state != "done" for state in states):
        code = 3
    try:
        _write(sweep, {0: "done", 75: "interrupted"}.get(code, "failed"))
        print(write_sweep(sweep["folder"]))
    except CannotWrite as error:
        print(f"kdrun: {error}", file=sys.stderr)
        return 3
    print(f"results: {os.path.relpath(sweep['folder'])}")
    return code
