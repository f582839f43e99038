"""Files that are written completely or not at all, and the errors that end a run. Does not import torch."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdrun import faults, sealed
from kdrun.spec import finite


class RunFailed(RuntimeError):
    """A run that could not be finished, with a reason to print; the command exits with 3."""


class CannotWrite(RunFailed):
    """The output folder cannot be written, as when the disk is full; a sweep starts no further cell."""


def permission(path: Path) -> str:
    """Return who owns a file or folder that this user may not write, and what the owner or this user can do."""
    above = (p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    place = next((p for p in above if not os.access(p, os.W_OK)), path)
    try:
        owner = place.owner()
    except (KeyError, OSError):  # a user without a name
        owner = f"user {place.stat().st_uid}" if place.exists() else "somebody else"
    return (
        f"{place} belongs to {owner}, and you cannot write to it. {owner} can share the files with chmod -R g+rwX, "
        "and future ones with umask 002; or choose your own folder with outputs=DIR"
    )


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see, and a crash leaves, either the old content or the new, never a part.

    If the folder is removed meanwhile, it is created again, once. Raise CannotWrite, with path and free space, if the
    disk is full or the folder cannot be written.
    """
    try:
        try:
            _write(path, content)
        except FileNotFoundError:
            _write(path, content)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise CannotWrite(f"cannot write {path}: {permission(path)}") from error
        free = shutil.disk_usage(next(p for p in path.absolute().parents if p.is_dir())).free
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ESTALE):
            state = (
                "its folder was removed or replaced, and what was saved there is lost; the same command recreates it"
            )
        else:
            state = "what was saved before is intact, and the same command resumes when there is room"
        raise CannotWrite(
            f"cannot write {path}: {error.strerror or error} ({free / 1e6:.0f} MB free there); {state}"
        ) from error


def _write(path: Path, content: bytes) -> None:
    """Write a temporary file in the same folder and rename it; remove the temporary file on any failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content[: len(content) // 2])
            faults.reach("in_write")
            file.write(content[len(content) // 2 :])
            file.flush()
            os.fsync(file.fileno())
        faults.reach("before_rename")
        temporary.replace(path)
        faults.reach("after_rename")
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:  # including an interruption
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_sealed(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record atomically, with its seal; NaN and infinities become null. Raise CannotWrite like write_atomic."""
    write_atomic(path, sealed.seal(finite(record)))


def sweep_temporaries(folder: Path) -> None:
    """Remove temporary files that a killed process left in a folder; the caller holds its lock."""
    for stale in folder.rglob(".*.tmp"):
        stale.unlink(missing_ok=True)
