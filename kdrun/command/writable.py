"""Whether results can be written, checked without leaving anything on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from kdrun import checks
from kdrun.command import roles
from kdrun.command.composing import ComposedCell, let_values_see

# interpolations that mean the same in all cells with the same outputs
_COMMON = re.compile(r"\$\{(outputs|hydra\.job\.name|now:[^${}]*|kdrun\.uid:)\}")


def problems(cells: Sequence[ComposedCell], *, sweep: bool) -> list[str]:
    """Return which folders of results cannot be written, and why."""
    problems: dict[str, str] = {}
    looked_at: set[Path] = set()
    known: dict[tuple[str, Path], Path] = {}
    for cell in cells:
        let_values_see(cell.cfg)
        outputs, measuring = Path(cell.values["outputs"]), "run" in cell.values
        # a measuring verb only reads the store of its run, which may be another user's
        for wanted in (*(() if measuring else (outputs, outputs / "store")), _folder(cell, outputs, sweep, known)):
            if wanted in looked_at:
                continue
            looked_at.add(wanted)
            if why := checks.no_room(wanted.absolute()):
                where = checks.short(str(outputs if measuring else wanted))
                end = ", and name the run by its folder" if measuring else " or KDRUN_OUTPUTS"
                problems.setdefault(why, f"outputs={where}: {why}; choose a folder with outputs=DIR{end}")
                break
    return list(problems.values())


def _folder(cell: ComposedCell, outputs: Path, sweep: bool, known: dict[tuple[str, Path], Path]) -> Path:
    """Return the folder of a run or a sweep; `known` holds those that do not differ between cells."""
    written = str(roles.values(cell.cfg.hydra.sweep if sweep else cell.cfg.hydra.run)["dir"])
    if (found := known.get((written, outputs))) is not None:
        return found
    folder = Path(str(cell.cfg.hydra.sweep.dir if sweep else cell.cfg.hydra.run.dir))
    if "${" not in _COMMON.sub("", written):
        known[written, outputs] = folder
    return folder
