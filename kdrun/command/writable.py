"""Whether results can be written, checked without leaving anything on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdrun import checks
from kdrun.command.composing import ComposedCell


def problems(cells: Sequence[ComposedCell], *, sweep: bool) -> list[str]:
    """Return which folders of results cannot be written, and why."""
    problems: dict[str, str] = {}
    looked_at: set[Path] = set()
    for cell in cells:
        outputs, measuring = Path(cell.values["outputs"]), "run" in cell.values
        # a measuring verb only reads the store of its run, which may be another user's
        for wanted in (
            *(() if measuring else (outputs, outputs / "store")),
            Path(cell.folders["sweep" if sweep else "run"]),
        ):
            if wanted in looked_at:
                continue
            looked_at.add(wanted)
            if why := checks.no_room(wanted.absolute()):
                where = checks.short(str(outputs if measuring else wanted))
                end = ", and name the run by its folder" if measuring else " or KDRUN_OUTPUTS"
                problems.setdefault(why, f"outputs={where}: {why}; choose a folder with outputs=DIR{end}")
                break
    return list(problems.values())
