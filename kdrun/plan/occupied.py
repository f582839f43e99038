"""Check whether a command would overwrite the results of another, before anything is written.

Only a folder that was typed (hydra.run.dir, hydra.sweep.dir) can contain results: folders chosen by kdrun are new.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdrun.command.composing import ComposedCell, let_values_see
from kdrun.command.invocation import Invocation
from kdrun.results.runs import Run, cells_in, read_run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def problems(invocation: Invocation, cells: Sequence[ComposedCell], *, sweep: bool, searched: bool) -> list[str]:
    """Return which results would be overwritten; the same trainings in the same folder are only shown again."""
    cfg = cells[0].cfg
    let_values_see(cfg)  # a value may contain ${hydra:…}
    folder = Path(str(cfg.hydra.sweep.dir if sweep else cfg.hydra.run.dir))
    key = f"hydra.{'sweep' if sweep else 'run'}.dir"
    refused = f"{key}={folder}: already contains %s, from {_command(folder)}; type another {key}, or leave it out"
    if (folder / ("run.json" if sweep else "sweep.json")).is_file():
        return [refused % ("a run" if sweep else "a sweep")]
    begun = [run for run in (cells_in(folder) if sweep else [read_run(folder)]) if (run.folder / "run.json").is_file()]
    if begun and cfg.get("plan"):
        return [f"plan=true: writes nothing, but {key}={folder} already contains results; leave {key} out"]
    finished = [run for run in begun if run.comparison is not None or run.record.get("status") == "done"]
    try:
        if any(not _same(invocation, run, cells, sweep=sweep, searched=searched) for run in finished):
            return [refused % "a finished comparison of other trainings"]
    except ValueError as error:
        return [str(error)]
    return []


def _same(invocation: Invocation, run: Run, cells: Sequence[ComposedCell], *, sweep: bool, searched: bool) -> bool:
    """Return whether this command, or its cell of that number, would produce the same run again."""
    if searched:  # the command determines its trials
        return run.record.get("command") == invocation.command
    number = int(run.folder.name) if sweep else 0
    if number >= len(cells) or run.record.get("verb") != invocation.verb:
        return False
    cfg = cells[number].cfg
    as_before = (run.record.get("config") or {}).get("format") == cfg.get("format")
    return as_before and _fingerprints_of(run) == _fingerprints_for(invocation.verb, cfg)


def _fingerprints_of(run: Run) -> set[str]:
    """Return the fingerprints of the networks that a run compared or measured."""
    if run.comparison is None:
        return {str(used["fingerprint"]) for used in run.record["artifacts"]}
    rows = [row for row in run.comparison["rows"] if not row.get("ensemble_of")]
    return {str(point["fingerprint"]) for row in rows for point in row["points"]}


def _fingerprints_for(verb: str, cfg: DictConfig) -> set[str]:
    """Return the fingerprints of the networks that a command is about. Raise ValueError if it cannot run."""
    outputs = Path(cfg.outputs)
    if verb == "evaluate":
        from kdrun.results.sweep.sweep import named_run

        return {str(used["fingerprint"]) for used in named_run(str(cfg.run), outputs)[0].record["artifacts"]}
    if verb == "export":
        from kdrun.export.choose import choose

        return {choose(str(cfg.run), cfg.role, cfg.seed, outputs).fingerprint}
    from kdrun.plan.requests import RequestBuilder
    from kdrun.plan.waves import waves
    from kdrun.store import Store
    from kdrun.training import devices

    let_values_see(cfg)
    builder = RequestBuilder.read(verb, cfg, cfg.hydra.runtime.choices, devices.resolve_device(cfg.device))
    return {entry.spec.fingerprint for wave in waves(builder, Store(outputs / "store")) for entry in wave}


def _command(folder: Path) -> str:
    """Return the command that made a run or a sweep."""
    run = next(iter(cells_in(folder)), None) if (folder / "sweep.json").is_file() else read_run(folder)
    command = None if run is None else (run.record.get("command") or (run.comparison or {}).get("command"))
    return str(command or "an unknown command")
