"""Whether results can be written, checked without leaving anything on disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig

from kdrun import signals
from kdrun.command import overrides

if TYPE_CHECKING:
    from kdrun.command.preflight import ComposedCell

ROOM_BYTES = 4_096  # less than the records of any run take


def problems(cells: Sequence[ComposedCell], *, sweep: bool) -> list[str]:
    """Return which folders of results cannot be written, and why."""
    problems: dict[str, str] = {}
    looked_at: set[Path] = set()
    for cell in cells:
        HydraConfig.instance().set_config(cell.cfg)
        folder = cell.cfg.hydra.sweep.dir if sweep else cell.cfg.hydra.run.dir
        for wanted in (Path(cell.cfg.outputs), Path(cell.cfg.outputs) / "store", Path(str(folder))):
            if wanted in looked_at:
                continue
            looked_at.add(wanted)
            if why := no_room(wanted.absolute()):
                where = f"outputs={overrides.short(str(wanted))}: {why}"
                problems.setdefault(why, f"{where}; choose a folder with outputs=DIR or KDRUN_OUTPUTS")
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
        # the only test that holds for every file system and user; a signal waits, so that nothing is left
        with signals.StopFlag(), tempfile.TemporaryDirectory(dir=path) as made, open(Path(made, "test"), "wb") as file:
            file.write(b"\0" * ROOM_BYTES)
        return None
    except OSError as error:
        free = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = f"; {shutil.disk_usage(path).free / 1e6:.1f} MB are free there"
        return f"{overrides.short(str(path))} cannot be written ({error.strerror or error}{free})"
