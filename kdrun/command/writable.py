"""Whether results can be written, checked without leaving anything on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig

from kdrun import checks

if TYPE_CHECKING:
    from kdrun.command.preflight import ComposedCell


def problems(cells: Sequence[ComposedCell], *, sweep: bool) -> list[str]:
    """Return which folders of results cannot be written, and why."""
    problems: dict[str, str] = {}
    for cell in cells:
        HydraConfig.instance().set_config(cell.cfg)
        folder = cell.cfg.hydra.sweep.dir if sweep else cell.cfg.hydra.run.dir
        for wanted in (Path(cell.cfg.outputs), Path(cell.cfg.outputs) / "store", Path(str(folder))):
            if why := checks.no_room(wanted.absolute()):
                where = f"outputs={checks.short(str(wanted))}: {why}"
                problems.setdefault(why, f"{where}; choose a folder with outputs=DIR or KDRUN_OUTPUTS")
                break
    return list(problems.values())
