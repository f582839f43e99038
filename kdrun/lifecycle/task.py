"""What every composed verb shares: its run folder, its record in run.json, and its exit code.

Hydra creates the folder; run.json records what was typed, how the run ended and which artifacts it used. A command
that is refused for bad input leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import re
import shutil
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kdrun import config, memory, process, sealed, signals
from kdrun.artifact import Artifact
from kdrun.caller import CALLER
from kdrun.command import groups, plugins
from kdrun.command.invocation import Invocation
from kdrun.files import CannotWrite, RunFailed, write_atomic, write_sealed
from kdrun.lifecycle.cell import parallel_setup
from kdrun.records import ArtifactJson, RunJson, SweepJson
from kdrun.results.runs import MAIN
from kdrun.version import __version__

log = logging.getLogger(__name__)


@dataclass
class RunRecord:
    """One command, or one cell of a sweep, while it runs."""

    invocation: Invocation
    folder: Path
    record: RunJson
    cell: str | None = None  # in a sweep, the words that distinguish this cell
    artifacts: list[tuple[ArtifactJson, Artifact]] = field(default_factory=list)
    planned: dict[str, float] = field(default_factory=dict)  # by fingerprint, with plan=time: estimated seconds

    @property
    def in_sweep(self) -> bool:
        """Whether this is a cell of a sweep."""
        return self.cell is not None

    @property
    def verbose(self) -> bool:
        """Whether to print what otherwise goes only into files."""
        return bool(self.record["config"].get("verbose"))

    def use(self, role: str, *artifacts: Artifact, label: str = "", lane: str = "") -> None:
        """Add artifacts to the run's record, with their role in this run.

        That role may differ from the one they were trained in: with alpha=0 the student is the baseline. `label` names
        them in the comparison; `lane` is the student that they belong to, if there are several.
        """
        self.artifacts += [({"role": role, "label": label or role, "lane": lane}, a) for a in artifacts]

    def want(self, fingerprints: Iterable[str]) -> None:
        """Record which networks the run needs before they are trained, so that `kdrun store prune` keeps them."""
        self.record["wanted"] = sorted(set(fingerprints))
        self.write("running")

    def search_value(self) -> float | None:
        """Return what a search maximises: the first student's validation accuracy when selected, mean over seeds.

        Without a student, return the baseline's or else the teacher's; None if nothing was held out.
        """
        role = next((role for role in MAIN if any(part["role"] == role for part, _ in self.artifacts)), "")
        selected = [(part["lane"], artifact) for part, artifact in self.artifacts if part["role"] == role]
        accuracies = [artifact.accuracy("val") for lane, artifact in selected if lane == selected[0][0]]
        known = [accuracy for accuracy in accuracies if accuracy is not None]
        return sum(known) / len(known) if known and len(known) == len(accuracies) else None

    def write(self, status: str, reason: str | None = None) -> None:
        """Write run.json with this status."""
        used: list[ArtifactJson] = [
            {**part, "seed": a.spec.seed, "fingerprint": a.fingerprint, "folder": a.folder.name}
            for part, a in self.artifacts
        ]
        if "status" in self.record and not (self.folder / "run.json").exists():
            log.warning("%s was removed while the command ran: it is created again, but its log is lost", self.folder)
        self.record |= {"status": status, "reason": reason, "artifacts": used, "process": process.this()}
        write_sealed(self.folder / "run.json", self.record)


Verb = Callable[[DictConfig, RunRecord], None]
_usual_format = warnings.formatwarning


def _format_warning(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> str:
    """Return a warning's text, without file and line if it is kdrun's own or torch's on deterministic algorithms."""
    if match := re.match(r"(\w+) does not have a deterministic implementation", str(message)):
        return f"{match[1]} has no deterministic algorithm on a GPU: this network's results can differ from run to run"
    own = category is UserWarning and Path(filename).is_relative_to(Path(config.__file__).parent)
    return str(message) if own else _usual_format(message, category, filename, *rest)


def task(verb: Verb) -> Callable[[DictConfig, Invocation], float | dict[str, float] | None]:
    """Wrap a verb as Hydra's task: the exit code says how it ended, run.json why.

    The task returns the number that a search maximises, for Hydra's sweepers, or the estimated times for a plan.
    """

    @functools.wraps(verb)
    def run_verb(cfg: DictConfig, invocation: Invocation) -> float | dict[str, float] | None:
        hydra = HydraConfig.get()
        sweep = hydra.mode == RunMode.MULTIRUN
        plan = bool(cfg.get("plan"))
        logging.captureWarnings(True)  # log them to the file as well, without breaking the progress bar
        warnings.formatwarning = _format_warning  # type: ignore[assignment]
        cell = _cell(hydra) if sweep else None
        run = RunRecord(invocation, groups.output_folder(hydra), _record(invocation, cfg, hydra), cell)
        if not sweep and (caller := CALLER.get()) is not None:
            caller.folder = run.folder.absolute()
        previous = _earlier_record(run.folder)
        if "run" not in cfg:  # evaluate and export do not change outputs/latest
            point_latest(cfg, Path(hydra.sweep.dir) if sweep else run.folder)
        status, reason, code, full = "done", None, 0, False
        setup = contextlib.ExitStack()
        try:
            with signals.raising():
                if not plan:
                    run.write("running")
                setup.enter_context(parallel_setup(cfg, hydra))
                verb(cfg, run)
        except BaseException as error:
            if _queued_again(error):
                setup.close()
                run.write("interrupted", "its time limit was reached; it was requeued, and resumes")
                raise  # the exit code tells submitit that the job was requeued
            status, reason, code = _ended(error, cfg, run)
            full = isinstance(error, CannotWrite) or getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT)
        setup.close()
        if code == 2 and not sweep and previous is not None:
            write_atomic(run.folder / "run.json", previous)  # restore what this folder held before
        elif plan or (code == 2 and not sweep):
            leave_nothing(run.folder, Path(cfg.outputs))
        else:
            try:
                run.write(status, reason)
            except CannotWrite as error:
                log.error("kdrun: %s", error)
                raise SystemExit(3) from None
        # In a sweep, go on with the next cell: the sweep's table reads run.json. Parallel launchers ignore exit codes.
        if (code == 75 or full or (code and not sweep)) and (plugins.in_turn(hydra) or not sweep):
            raise SystemExit(code)
        if plan:
            return run.planned
        return run.search_value() if code == 0 else None

    return run_verb


def _ended(error: BaseException, cfg: DictConfig, run: RunRecord) -> tuple[str, str, int]:
    """Log the error that ended a verb, and return the status, the reason and the exit code."""
    # interrupted code may raise some other error instead; but a RunFailed still says what could not be saved
    if isinstance(error, KeyboardInterrupt) or (signals.received() and not isinstance(error, RunFailed)):
        again = "the same command without force=true" if cfg.get("force") else "the same command"
        log.warning("interrupted: everything so far is saved; %s resumes", again)
        return "interrupted", f"stopped by a signal; {again} resumes", signals.INTERRUPTED
    if isinstance(error, ValueError | RunFailed):
        # a command is refused only before its networks are trained: a ValueError after that is a bug
        bug = isinstance(error, ValueError) and bool(run.artifacts) and "run" not in cfg
        log.error("kdrun: %s", error, exc_info=bug)
        status = "oom" if isinstance(error, memory.OutOfMemory) else "failed"
        return status, str(error), 3 if bug or isinstance(error, RunFailed) else 2
    if memory.ran_out(error):
        reason = f"out of memory{memory.peak()}, {_of_batches(cfg)}"
        log.error("kdrun: %s", reason)
        return "oom", reason, 3
    # a bug of kdrun or of a user's code, which may call sys.exit(0)
    log.error("kdrun: %s: %s", type(error).__name__, error, exc_info=error)
    return "failed", f"{type(error).__name__}: {error}", 3


def _queued_again(error: BaseException) -> bool:
    """Return whether an error is the SystemExit of submitit's signal handler, which requeues the job."""
    frames = traceback.walk_tb(error.__traceback__) if isinstance(error, SystemExit) else ()
    return any(frame.f_globals.get("__name__", "").startswith("submitit.") for frame, _ in frames)


def _of_batches(cfg: DictConfig) -> str:
    """Return the sizes of the batches that a command trains or measures with, and what to type if they do not fit."""
    if "recipe" in cfg:
        sizes = (
            f"recipe.batch_size={cfg.recipe.batch_size} and teacher.recipe.batch_size={cfg.teacher.recipe.batch_size}"
        )
        return f"with {sizes}; type smaller ones, or smaller networks, or free some memory"
    return f"with batch_size={cfg.batch_size}; type a smaller one, or free some memory"


def _cell(hydra: Any) -> str:
    """Return what distinguishes a cell of a sweep: its words, without those that all cells share."""
    with contextlib.suppress(OSError, ValueError):
        sweep = sealed.read(Path(hydra.sweep.dir) / "sweep.json", SweepJson)
        if sweep["searched"]:  # the cells of a search are not known in advance
            shared, words = {word.lower() for word in sweep["overrides"]}, list(hydra.overrides.task)
        else:
            cells = [cell["overrides"] for cell in sweep["cells"]]
            shared, words = {word.lower() for word in set[str].intersection(*map(set, cells))}, cells[hydra.job.num]
        if own := [word for word in words if word.lower() not in shared]:
            return " ".join(own)
    return f"cell {hydra.job.num}"


def _earlier_record(folder: Path) -> bytes | None:
    """Return the run.json that an earlier command left in this folder, or None if there is none."""
    with contextlib.suppress(OSError):
        return (folder / "run.json").read_bytes()
    return None


def _record(invocation: Invocation, cfg: DictConfig, hydra: Any) -> RunJson:
    choices = {key: value for key, value in hydra.runtime.choices.items() if not key.startswith("hydra/")}
    return {
        "verb": invocation.verb,
        "command": invocation.command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "kdrun": __version__,
        "choices": {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in choices.items()},
        "overrides": list(hydra.overrides.task),
        "config": OmegaConf.to_container(cfg, resolve=True),  # type: ignore[typeddict-item]
        "formula": None,
        "notes": list(invocation.notes),
        "wanted": [],
    }


def point_latest(cfg: DictConfig, folder: Path) -> None:
    """Let outputs/latest point at the newest run or sweep, if the file system has links."""
    root = Path(cfg.outputs).absolute()
    link, fresh = root / "latest", root / f".latest.{os.getpid()}"
    try:
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(folder.absolute(), root))
        fresh.replace(link)
    except OSError:
        fresh.unlink(missing_ok=True)


def leave_nothing(folder: Path, outputs: Path) -> None:
    """Remove what a refused or planned run or sweep wrote, and the folders that became empty.

    Files are removed by name, never as a tree: hydra.run.dir may hold a user's own files.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()
    shutil.rmtree(folder / ".hydra", ignore_errors=True)
    for name in ("kdrun.log", "run.json", "sweep.json", "multirun.yaml"):
        (folder / name).unlink(missing_ok=True)
    latest = outputs / "latest"
    if latest.is_symlink() and not (latest / "run.json").exists() and not (latest / "sweep.json").exists():
        latest.unlink()
        _point_back(outputs)
    place, kept = folder.absolute(), [Path.cwd(), *Path.cwd().parents, *outputs.absolute().parents]
    while place not in kept and place.is_dir() and not any(place.iterdir()):
        place.rmdir()
        place = place.parent


def _point_back(outputs: Path) -> None:
    """Let outputs/latest point at the newest run that is left."""
    left = [p for kind in ("runs", "sweeps") for p in (outputs / kind).glob("*/*") if p.is_dir()]
    left = [p for p in left if p.parent.name not in config.MEASURING]  # measuring runs are never the latest
    left = [p for p in left if (p / "run.json").exists() or (p / "sweep.json").exists()]
    if left:
        newest = max(left, key=lambda p: p.name)
        (outputs / "latest").symlink_to(os.path.relpath(newest, outputs))
