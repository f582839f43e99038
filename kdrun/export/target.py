"""The folder that an export is written to: checked first, filled once the export has passed its check. No torch."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdrun.artifact import Artifact
from kdrun.checks import no_room, typed_path
from kdrun.export.card import card
from kdrun.export.choose import Choice, choose
from kdrun.export.sheet import CARD, Sheet, missing
from kdrun.files import RunFailed, write_atomic

if TYPE_CHECKING:
    from kdrun.command.composing import ComposedCell
    from kdrun.export.check import Check

UNCHECKED, FAILED, CHECKED = "unchecked", "failed", "export.json"


def problems(cells: Sequence[ComposedCell]) -> list[str]:
    """Return what is wrong with the network, the format and the folder that each cell names."""
    problems: list[str] = []
    for cfg in (cell.cfg for cell in cells):
        problems += [absent] if (absent := missing(cfg.format)) else []
        try:
            choose(str(cfg.run), cfg.role, cfg.seed, Path(cfg.outputs))
        except ValueError as error:
            problems.append(str(error))
        if cfg.to is not None:
            problems += _unfit(str(cfg.to))
    typed = [str(cell.cfg.to) for cell in cells if cell.cfg.to is not None]
    places = [os.path.abspath(to) for to in typed]
    if shared := [to for to, place in zip(typed, places, strict=True) if places.count(place) > 1]:
        problems.append(f"to={shared[0]}: the cells would all write to it; type for example 'to=DIR/${{format}}'")
    return list(dict.fromkeys(problems))


def _unfit(to: str) -> list[str]:
    """Return why nothing can be exported to a folder."""
    if not to.strip() or to.startswith("~"):
        return [f"to={to}: type a full path; ~ is not expanded here"]
    try:
        place = typed_path(to, "to=")
    except ValueError as error:
        return [str(error)]
    if place.exists() and not place.is_dir():
        return [f"to={to}: is a file; name a folder"]
    if place.is_dir() and any(place.iterdir()):
        return [f"to={to}: is not empty; name a new folder, or empty it first"]
    why = no_room(place.absolute())
    return [f"to={to}: {why}; name another folder"] if why else []


@contextlib.contextmanager
def unchecked(folder: Path) -> Iterator[Path]:
    """Yield the folder that holds an export until it is checked; a signal removes it, so that the command can rerun."""
    made = folder / UNCHECKED
    try:
        yield made
    except KeyboardInterrupt:
        shutil.rmtree(made, ignore_errors=True)
        with contextlib.suppress(OSError):  # the folder stays if it holds other files
            folder.rmdir()
        raise


def settle(folder: Path, sheet: Sheet, artifact: Artifact, choice: Choice, check: Check | None) -> Path:
    """Move an export that passed its check into `folder`, with its model card and the check's measurements.

    If it did not pass, move it to failed/ and raise RunFailed.
    """
    made = folder / UNCHECKED
    record = {
        "file": sheet.file, "format": sheet.format, "fingerprint": sheet.fingerprint, "role": sheet.role,
        "seed": sheet.seed, "run": choice.run.name if choice.run else None, "chosen": choice.reason,
        "check": None if check is None else check.data(),
    }  # fmt: skip
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if check is not None and (why := check.parity.problem):
        write_atomic(made / CHECKED, text.encode())
        made.rename(folder / FAILED)
        raise RunFailed(
            f"{sheet.file} does not match the network it was exported from: {why}. It was moved to {folder / FAILED}; "
            "format=safetensors or format=torch_export may work for this network"
        )
    write_atomic(folder / CARD, card(sheet, artifact, choice, check).encode())
    write_atomic(folder / CHECKED, text.encode())
    for file in made.iterdir():
        file.rename(folder / file.name)
    made.rmdir()
    return folder / sheet.file
