"""The store: artifacts on disk, found by fingerprint, locked in training, committed atomically. Does not import torch.

    store/ROLE-DATASET-MODEL-FINGERPRINT/   spec.json result.json history.csv model.safetensors logits.safetensors

result.json is written last, with the checksums of the others: a folder without it is unfinished.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kdrun import faults, locks, sealed
from kdrun.artifact import Artifact, check_files, leftovers, read_result, read_spec
from kdrun.files import CannotWrite, RunFailed, permission, sweep_temporaries, write_atomic
from kdrun.locks import Busy, Holder
from kdrun.spec import Spec, differences

ANEW = "anew"  # file in an artifact's folder with the tokens of the force=true commands that restarted its training


class Store:
    """The artifacts below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, role: str, dataset: str, model: str, spec: Spec) -> Path:
        """Return the folder of this spec: the existing one, whatever its name, or a new one with these names."""
        existing = self._folders(spec.fingerprint)
        return existing[0] if existing else self.root / f"{role}-{dataset}-{model}-{spec.fingerprint}"

    def find(self, fingerprint: str) -> Artifact | None:
        """Return the committed artifact of this fingerprint, verified against its checksums, or None.

        Raise Damaged if a committed file is damaged or missing, and RunFailed if one cannot be read. Nothing is moved:
        a process that holds the lock may set a damaged artifact aside.
        """
        for folder in self._folders(fingerprint):
            try:
                result = read_result(folder)
            except FileNotFoundError:
                continue
            check_files(folder, result, result["checksums"])
            return Artifact(folder, read_spec(folder, result), result)
        return None

    def set_aside(self, folder: Path) -> Path:
        """Rename a damaged folder, whose lock is held, to NAME.corrupt, NAME.corrupt.2, …, and return its new place."""
        names = (f"{folder.name}.corrupt{number}" for number in ("", *(f".{n}" for n in range(2, 1000))))
        aside = next(path for path in map(folder.with_name, names) if not path.exists())
        return folder.rename(aside)

    def nearest(self, role: str, dataset: str, model: str, spec: Spec) -> tuple[str, list[str]] | None:
        """Return the fingerprint of the artifact with these names and the nearest spec, and the keys that differ."""
        best: tuple[str, list[str]] | None = None
        for folder in sorted(self.root.glob(f"{role}-{dataset}-{model}-*")):
            try:
                if not (folder / "result.json").is_file():
                    continue
                other = Spec.from_json((folder / "spec.json").read_text())
            except (ValueError, KeyError, TypeError, OSError):
                continue
            keys = differences(spec, other)
            if best is None or len(keys) < len(best[1]):
                best = (other.fingerprint, keys)
        return best

    @contextmanager
    def locked(self, fingerprint: str, waiting: Callable[[], None] | None) -> Iterator[None]:
        """Hold the lock of one fingerprint: one process trains it, the others wait. Killing the process frees the lock.

        `waiting` is called repeatedly while another process holds the lock, and may raise to give up. Raise Busy if
        another process holds it and `waiting` is None, and RunFailed if this user cannot lock it.
        """
        path = self._lock(fingerprint)
        try:
            lock = locks.acquire(path, waiting)
        except OSError as error:
            raise _not_locked(path, error) from error
        try:
            yield
        finally:
            locks.release(path, lock)

    def holder(self, fingerprint: str) -> Holder | None:
        """Return which process holds the lock of a fingerprint; None if none does or it is unknown."""
        return locks.holder(self._lock(fingerprint))

    def _lock(self, fingerprint: str) -> Path:
        return self.root / ".locks" / fingerprint

    def commit(self, folder: Path, files: dict[str, bytes], result: Mapping[str, Any]) -> Artifact:
        """Write an artifact's files, result.json last, remove its checkpoints, and return the artifact."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomic(folder / name, content)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        faults.reach("before_result")
        write_atomic(folder / "result.json", sealed.seal({**result, "checksums": sums}))
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        sweep_temporaries(folder)
        return Artifact(folder, Spec.from_json(files["spec.json"].decode()), read_result(folder))

    def begin_anew(self, folder: Path, spec: Spec, command: str) -> None:
        """Remove the files of a training, unless this command has done so before (force=true).

        `command` is the token of one command, shared by all its processes. The caller holds the lock. `folder` is the
        training's future folder. A crash in between leaves an unfinished folder, whose training is restarted again.
        """
        for place in self._folders(spec.fingerprint) or [folder]:
            commands = _begun_anew(place)
            if command in commands:
                continue
            self.remove(place)
            write_atomic(place / ANEW, "\n".join([*commands, command]).encode())

    def begun_anew(self, artifact: Artifact, command: str) -> bool:
        """Return whether an artifact was retrained for this force=true command, or by another such command since."""
        return command in _begun_anew(artifact.folder)

    def remove(self, folder: Path) -> None:
        """Remove a folder of the store, whose lock is held. Raise CannotWrite if that is not allowed."""
        try:
            (folder / "result.json").unlink(missing_ok=True)  # first: without it the folder is unfinished
            if folder.exists():
                shutil.rmtree(folder)
        except OSError as error:
            why = permission(folder) if isinstance(error, PermissionError) else error.strerror or error
            raise CannotWrite(f"cannot remove {folder}: {why}") from error

    def tidy(self, folder: Path, fingerprint: str) -> None:
        """Remove what a killed command left in a finished folder, unless another process holds its lock."""
        if leftovers(folder):
            with suppress(Busy, RunFailed, OSError), self.locked(fingerprint, None):
                if (folder / "result.json").is_file():  # still finished, now that the lock is held
                    for path in leftovers(folder):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _folders(self, fingerprint: str) -> list[Path]:
        """Return the folders of a fingerprint, finished or not."""
        return sorted(p for p in self.root.glob(f"*-{fingerprint}") if p.is_dir())


def _begun_anew(folder: Path) -> list[str]:
    """Return the tokens of the force=true commands that restarted a training."""
    with suppress(OSError, ValueError):
        return (folder / ANEW).read_text().split()
    return []


def _not_locked(path: Path, error: OSError) -> RunFailed:
    """Return the error to raise if a lock file cannot be created or opened."""
    what = f"cannot lock {path.name} for training"
    if isinstance(error, PermissionError):
        return RunFailed(f"{what}: {permission(path)}")
    return CannotWrite(f"{what}: {path}: {error.strerror or error}")
