"""Whether results can be written, checked without leaving anything on disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig

from kdrun.command import overrides

if TYPE_CHECKING:
    from kdrun.command.preflight import ComposedCell


def problems(cells: Sequence[ComposedCell], *, sweep: bool) -> list[str]:
    """Return which folders of results cannot be written, and why."""
    problems: dict[str, str] = {}
    for cell in cells:
        HydraConfig.instance().set_config(cell.cfg)
        outputs, folder = Path(cell.cfg.outputs), cell.cfg.hydra.sweep.dir if sweep else cell.cfg.hydra.run.dir
        measuring = "run" in cell.cfg  # it reads the store of a run, perhaps another user's
        for wanted in (*(() if measuring else (outputs, outputs / "store")), Path(str(folder))):
            if why := no_room(wanted.absolute()):
                where = overrides.short(str(outputs if measuring else wanted))
                end = ", and name the run by its folder" if measuring else " or KDRUN_OUTPUTS"
                problems.setdefault(why, f"outputs={where}: {why}; choose a folder with outputs=DIR{end}")
                break
    return list(problems.values())


def no_room(path: Path) -> str | None:
    """Return why nothing can be made at an absolute `path`, from the first folder above it that exists; or None."""
    try:
        while not os.path.lexists(path):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.lstat()  # another error than a missing file means that the name is impossible
            path = path.parent
        if not path.is_dir():
            return f"{path} is a file"
        with tempfile.TemporaryDirectory(dir=path):  # the only test that holds for every file system and user
            return None
    except OSError as error:
        return f"{overrides.short(str(path))} cannot be written ({error.strerror or error})"
