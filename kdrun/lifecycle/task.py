"""What every composed verb shares: its run folder, its record in run.json, and its exit code.

The folder is Hydra's; run.json says what was asked, what came of it and which artifacts it used. A command
refused for bad input leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kdrun import config, process
from kdrun.command import plugins
from kdrun.lifecycle.cell import apart
from kdrun.records import ArtifactJson, RunJson
from kdrun.results.runs import MAIN
from kdrun.store import Artifact, CannotWrite, RunFailed, write_atomic
from kdrun.version import __version__

log = logging.getLogger(__name__)


@dataclass
class Run:
    """One command, or one cell of a sweep, while it runs."""

    folder: Path
    record: RunJson
    in_sweep: bool = False
    artifacts: list[tuple[ArtifactJson, Artifact]] = field(default_factory=list)

    def use(self, role: str, *artifacts: Artifact, label: str = "", lane: str = "") -> None:
        """Remember what this run rests on, each in the role it has here.

        That may be another than it was trained in: with alpha=0 the student is the baseline. `label` names it in
        the comparison, `lane` the one of several students that it belongs to.
        """
        self.artifacts += [({"role": role, "label": label or role, "lane": lane}, a) for a in artifacts]

    def objective(self) -> float | None:
        """Give what a search maximises: the first student's validation accuracy at the selected epoch, mean over seeds.

        Where there is no student, the baseline's or else the teacher's; None where nothing was held out.
        """
        role = next((role for role in MAIN if any(part["role"] == role for part, _ in self.artifacts)), "")
        found = [(part["lane"], artifact) for part, artifact in self.artifacts if part["role"] == role]
        points = [artifact.result["selected"] for lane, artifact in found if lane == found[0][0]]
        if not points or any(point is None or point["val"] is None for point in points):
            return None
        return sum(float(point["val"]["accuracy"]) for point in points) / len(points)

    def write(self, status: str, reason: str | None = None) -> None:
        """Write run.json with this status."""
        used: list[ArtifactJson] = [
            {**part, "seed": a.spec.seed, "fingerprint": a.fingerprint, "folder": a.folder.name}
            for part, a in self.artifacts
        ]
        self.record |= {"status": status, "reason": reason, "artifacts": used, "process": process.this()}
        write_atomic(self.folder / "run.json", (json.dumps(self.record, indent=2) + "\n").encode())


Verb = Callable[[DictConfig, Run], None]


_usual_format = warnings.formatwarning


def _own_as_a_sentence(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> str:
    """Show kdrun's own warnings, and torch's on algorithms, without file and line, which help nobody at a terminal."""
    if found := re.match(r"(\w+) does not have a deterministic implementation", str(message)):
        return f"{found[1]} has no deterministic algorithm on a GPU: this network's results can differ from run to run"
    own = category is UserWarning and Path(filename).is_relative_to(Path(config.__file__).parent)
    return str(message) if own else _usual_format(message, category, filename, *rest)


def task(verb: Verb) -> Callable[[DictConfig], float | None]:
    """Make Hydra's task of a verb: the exit code says how it ended, and run.json why.

    Gives what Hydra's sweepers ask for: the number that a search maximises.
    """

    @functools.wraps(verb)
    def run_verb(cfg: DictConfig) -> float | None:
        hydra = HydraConfig.get()
        sweep = hydra.mode == RunMode.MULTIRUN
        plan = bool(cfg.get("plan"))
        logging.captureWarnings(True)  # into the log file, and past the bar
        warnings.formatwarning = _own_as_a_sentence  # type: ignore[assignment]
        run = Run(Path(hydra.runtime.output_dir), _record(cfg, hydra), sweep)
        earlier = _earlier(run.folder)
        if "run" not in cfg:  # an evaluation is about a run: latest stays with what it measures
            point_latest(cfg, Path(hydra.sweep.dir) if sweep else run.folder)
        status, reason, code, full = "done", None, 0, False
        beside = contextlib.ExitStack()
        try:
            if not plan:
                run.write("running")
            beside.enter_context(apart(cfg, hydra))
            verb(cfg, run)
        except (ValueError, RunFailed) as error:
            # once its networks are trained a command is no longer refused: then a ValueError is a bug as any other
            bug = isinstance(error, ValueError) and bool(run.artifacts) and "run" not in cfg
            log.error("kdrun: %s", error, exc_info=bug)
            status, reason, code = "failed", str(error), 3 if bug or isinstance(error, RunFailed) else 2
            full = isinstance(error, CannotWrite)
        except KeyboardInterrupt:
            again = "the same command without force=true" if cfg.get("force") else "the same command"
            status, reason, code = "interrupted", f"a signal came; {again} resumes", 75
            log.warning("interrupted: everything so far is saved; %s resumes", again)
        except Exception as error:  # a bug of ours or of a user's own code: keep the traceback in the log
            log.exception("kdrun: %s: %s", type(error).__name__, error)
            status, reason, code = "failed", f"{type(error).__name__}: {error}", 3
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        beside.close()
        if code == 2 and not sweep and earlier is not None:
            write_atomic(run.folder / "run.json", earlier)  # what this folder held before stays
        elif plan or (code == 2 and not sweep):
            leave_nothing(run.folder, Path(cfg.outputs))
        else:
            try:
                run.write(status, reason)
            except CannotWrite as error:
                log.error("kdrun: %s", error)
                raise SystemExit(3) from None
        # else a sweep goes on; run.json tells its table. Launchers that run cells beside others know no exit codes.
        if (code == 75 or full or (code and not sweep)) and (plugins.in_turn(hydra) or not sweep):
            raise SystemExit(code)
        return run.objective() if code == 0 and not plan else None

    return run_verb


def _earlier(folder: Path) -> bytes | None:
    """Return the run.json that an earlier command left in a folder that was typed; None in a new one."""
    with contextlib.suppress(OSError):
        return (folder / "run.json").read_bytes()
    return None


def _record(cfg: DictConfig, hydra: Any) -> RunJson:
    choices = {key: value for key, value in hydra.runtime.choices.items() if not key.startswith("hydra/")}
    return {
        "verb": hydra.job.name,
        "command": os.environ.get("KDRUN_COMMAND", "kdrun"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "kdrun": __version__,
        "choices": {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in choices.items()},
        "overrides": list(hydra.overrides.task),
        "config": OmegaConf.to_container(cfg, resolve=True),  # type: ignore[typeddict-item]
        "formula": None,
        "notes": json.loads(os.environ.get("KDRUN_NOTES", "[]")),
    }


def point_latest(cfg: DictConfig, folder: Path) -> None:
    """Let outputs/latest point at the newest run or sweep; a file system without links goes without."""
    root = Path(cfg.outputs).absolute()
    link, fresh = root / "latest", root / f".latest.{os.getpid()}"
    try:
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(folder.absolute(), root))
        fresh.replace(link)
    except OSError:
        fresh.unlink(missing_ok=True)


def leave_nothing(folder: Path, outputs: Path) -> None:
    """Remove what a run or sweep wrote before it was refused or planned, and the folders that became empty.

    By name, never as a tree: hydra.run.dir may be a folder that holds a user's own files.
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
    left = [p for p in left if p.parent.name not in config.MEASURING]  # which never were the latest
    left = [p for p in left if (p / "run.json").exists() or (p / "sweep.json").exists()]
    if left:
        newest = max(left, key=lambda p: p.name)
        (outputs / "latest").symlink_to(os.path.relpath(newest, outputs))
