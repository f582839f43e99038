"""Checkpoints of a running training: the last two are kept, so that a kill at any moment leaves a valid one.

A file is a sha256 in hex, a newline, and the output of torch.save; it is read with weights_only=True.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from kdrun.config import Every
from kdrun.files import RunFailed, sweep_temporaries, write_atomic

log = logging.getLogger(__name__)
KEPT = 2
LONG_SECONDS = 10  # if the last checkpoint is at least this old, MOST limits the cost of saving
MOST = 0.01  # share of the time that saving may take


class Pace:
    """Decides when checkpoints are due, by `checkpoint_every`. It uses a monotonic clock, and waits for no device.

    auto: at the end of every epoch, and within an epoch a minute after the last checkpoint. If saving is slow, so that
    it would take more than the share `MOST` of the time, the minute becomes longer, and after epochs of 10 seconds or
    more some checkpoints are skipped. The position of a checkpoint changes no number: a training resumes bit for bit
    from any batch.
    """

    def __init__(self, every: Every) -> None:
        self.every = every
        self._steps, self._since, self._cost = 0, time.monotonic(), 0.0

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Time the block, which saves a checkpoint, and restart the counters after it."""
        began = time.monotonic()
        yield
        self._steps, self._since = 0, time.monotonic()
        self._cost = self._since - began

    def after_batch(self) -> bool:
        """Count a batch, and return whether a checkpoint is due within the epoch."""
        self._steps += 1
        seconds, number = time.monotonic() - self._since, self.every.number
        match self.every.unit:
            case "epochs":
                return False
            case "steps":
                return self._steps >= number
            case "min":
                return seconds >= 60 * number
        return seconds >= max(60, self._cost / MOST)

    def after_epoch(self, epoch: int) -> bool:
        """Return whether a checkpoint is due after an epoch (from 1), and count its last batch."""
        due = self.after_batch()
        match self.every.unit:
            case "epochs":
                return epoch % self.every.number == 0
            case "steps" | "min":
                return due
        seconds = time.monotonic() - self._since
        return seconds < LONG_SECONDS or seconds >= self._cost / MOST


def save(folder: Path, number: int, state: dict[str, Any]) -> None:
    """Write checkpoint `number` (its global step) and remove all but the newest two."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomic(folder / f"{number:09d}.ckpt", hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    for old in sorted(folder.glob("*.ckpt"))[:-KEPT]:
        old.unlink(missing_ok=True)


def load(folder: Path) -> dict[str, Any] | None:
    """Return the newest valid checkpoint, None if none was ever written.

    A damaged checkpoint is renamed to .corrupt with a warning, and the one before it is used. Raise RunFailed if one
    cannot be read, or if only damaged ones are left: a training is never started over silently.
    """
    sweep_temporaries(folder)
    files = sorted(folder.glob("*.ckpt"), reverse=True)
    for file in files:
        try:
            digest, _, content = file.read_bytes().partition(b"\n")
        except OSError as error:  # unreadable, which does not mean damaged
            raise RunFailed(
                f"cannot read the checkpoint {file} ({error.strerror or error}); nothing was moved. Check the "
                "permissions and the disk, then type the same command again"
            ) from error
        if hashlib.sha256(content).hexdigest().encode() == digest:
            try:
                state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
            except pickle.UnpicklingError as error:
                first = str(error).splitlines()[0]
                raise RunFailed(
                    f"{file} contains more than tensors and plain values, and is refused: {first}"
                ) from None
            except Exception as error:  # the checksum is right, but kdrun did not write this
                raise RunFailed(f"{file} is not a checkpoint, and is refused: {error!r}") from None
            return state
        aside = file.rename(_unused(file.with_suffix(".corrupt")))
        log.warning("the checkpoint %s is damaged: moved aside as %s, using the one before it", file, aside.name)
    if files or list(folder.glob("*.corrupt")):
        raise RunFailed(
            f"no checkpoint in {folder} can be read (damaged ones are moved aside as .corrupt); "
            "type the command with force=true to train from the start"
        )
    return None


def _unused(path: Path) -> Path:
    """Return a path that does not exist yet (NAME.2.corrupt, …), so that no damaged file overwrites an older one."""
    numbered = (path.with_suffix(f".{n}{path.suffix}") for n in range(2, 1000))
    return next(one for one in (path, *numbered) if not one.exists())
