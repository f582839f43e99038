"""Checkpoints of a running training: a kill at any moment leaves a valid one, and the last two are kept.

A file is a sha256 in hex, a newline, and the output of torch.save; it is read with weights_only=True.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from kdrun.store import RunFailed, sweep_temporaries, write_atomic

log = logging.getLogger(__name__)
KEPT = 2


def save(folder: Path, number: int, state: dict[str, Any]) -> None:
    """Write checkpoint `number` (its global step) and remove all but the newest two."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomic(folder / f"{number:09d}.ckpt", hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    for old in sorted(folder.glob("*.ckpt"))[:-KEPT]:
        old.unlink()


def load(folder: Path) -> dict[str, Any] | None:
    """Return the newest valid checkpoint, None if none was ever written.

    A damaged checkpoint is renamed to .corrupt with a warning, and the one before is taken. Raise RunFailed if only
    damaged ones are left, as a training is never silently started over, and if one cannot be read.
    """
    sweep_temporaries(folder)
    files = sorted(folder.glob("*.ckpt"), reverse=True)
    for file in files:
        try:
            digest, _, content = file.read_bytes().partition(b"\n")
        except OSError as error:  # not damaged, as far as one knows
            raise RunFailed(
                f"cannot read the checkpoint {file} ({error.strerror or error}); nothing was moved. Check the "
                "permissions and the disk, then type the same command again"
            ) from error
        if hashlib.sha256(content).hexdigest().encode() == digest:
            try:
                state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
            except pickle.UnpicklingError as error:
                first = str(error).splitlines()[0]
                raise RunFailed(f"{file} holds more than tensors and plain values, and is refused: {first}") from None
            except Exception as error:  # whole, but nothing that kdrun wrote
                raise RunFailed(f"{file} is no checkpoint, and is refused: {error!r}") from None
            return state
        aside = file.rename(_unused(file.with_suffix(".corrupt")))
        log.warning("the checkpoint %s is damaged: set aside as %s, going back to the one before", file, aside.name)
    if files or list(folder.glob("*.corrupt")):
        raise RunFailed(
            f"no checkpoint in {folder} can be read (damaged ones are set aside as .corrupt); "
            "type the command with force=true to train from the start"
        )
    return None


def _unused(path: Path) -> Path:
    """Return a path that does not exist yet, NAME.2.corrupt and so on: no damaged file replaces an older one."""
    numbered = (path.with_suffix(f".{n}{path.suffix}") for n in range(2, 1000))
    return next(one for one in (path, *numbered) if not one.exists())
