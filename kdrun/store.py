"""The store: artifacts on disk, found by fingerprint, locked while trained, committed as a whole. Knows no torch.

    store/ROLE-DATASET-MODEL-FINGERPRINT/   spec.json result.json history.csv model.safetensors logits.safetensors

result.json is written last, with the checksums of the others: a folder without it is unfinished.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdrun import faults
from kdrun.spec import Spec, differences


class RunFailed(RuntimeError):
    """A run that could not be finished, with a reason for people; the command exits 3."""


class CannotWrite(RunFailed):
    """The output folder cannot be written, as when the disk is full; a sweep starts no further cell."""


class Damaged(RunFailed):
    """An artifact whose committed files are damaged or gone."""

    def __init__(self, folder: Path, reason: str) -> None:
        self.folder, self.reason = folder, reason
        super().__init__(
            f"the artifact {folder.name} is damaged ({reason}); nothing was moved. The command that trained it sets it "
            "aside and trains it anew"
        )


class Busy(Exception):
    """Another process holds the lock of this fingerprint."""


@dataclass(frozen=True)
class Artifact:
    """What a finished training has left on disk."""

    folder: Path
    spec: Spec
    result: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """The spec's fingerprint, by which the store finds it."""
        return self.spec.fingerprint

    @property
    def finished(self) -> bool:
        """Whether it has usable weights; a diverged training is recorded without."""
        return bool(self.result["status"] == "done")


class Store:
    """The artifacts below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, role: str, dataset: str, model: str, spec: Spec) -> Path:
        """Return the folder of this spec, which keeps its name if it exists already."""
        existing = self._folders(spec.fingerprint)
        return existing[0] if existing else self.root / f"{role}-{dataset}-{model}-{spec.fingerprint}"

    def find(self, fingerprint: str) -> Artifact | None:
        """Return the committed artifact of this fingerprint, verified against its checksums, or None.

        Raise Damaged if a committed file is damaged or gone, and RunFailed if one cannot be read. Nothing is moved:
        whoever holds its lock may set a damaged one aside.
        """
        for folder in self._folders(fingerprint):
            try:
                text = (folder / "result.json").read_text()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _unreadable(folder, error) from error
            except ValueError as error:
                raise Damaged(folder, str(error)) from error
            try:
                result = json.loads(text)
                spec = Spec.from_json((folder / "spec.json").read_text())
                broken = [name for name, sha in result["checksums"].items() if file_sha256(folder / name) != sha]
            except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
                raise Damaged(folder, str(error)) from error
            except OSError as error:
                raise _unreadable(folder, error) from error
            if broken:
                raise Damaged(folder, broken[0])
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # left by a kill after result.json
            return Artifact(folder, spec, result)
        return None

    def set_aside(self, folder: Path) -> Path:
        """Rename a damaged folder, whose lock is held, to NAME.corrupt, NAME.corrupt.2, …, and return its new place."""
        names = (f"{folder.name}.corrupt{number}" for number in ("", *(f".{n}" for n in range(2, 1000))))
        aside = next(path for path in map(folder.with_name, names) if not path.exists())
        return folder.rename(aside)

    def nearest(self, role: str, dataset: str, model: str, spec: Spec) -> tuple[str, list[str]] | None:
        """Return the committed artifact of the same names whose spec differs least, and the keys that differ."""
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
        """Hold the lock of one fingerprint: one process trains it, the others wait. A killed process frees it.

        `waiting` is called repeatedly while another process holds the lock, and may raise to give up. Raise Busy if
        another process holds it and `waiting` is None.
        """
        path = self.root / ".locks" / fingerprint
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        while True:
            with suppress(Timeout):
                lock.acquire(timeout=0.5 if waiting else 0)
                break
            if waiting is None:
                raise Busy(fingerprint)
            waiting()
        try:
            yield
        finally:
            lock.release()

    def commit(self, folder: Path, files: dict[str, bytes], result: Mapping[str, Any]) -> Artifact:
        """Write an artifact's files, result.json last, remove its checkpoints, and return the artifact."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomic(folder / name, content)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        faults.reach("before_result")
        whole = {**result, "checksums": sums}
        write_atomic(folder / "result.json", (json.dumps(whole, indent=2, allow_nan=False) + "\n").encode())
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        sweep_temporaries(folder)
        return Artifact(folder, Spec.from_json(files["spec.json"].decode()), whole)

    def discard(self, fingerprint: str, before: float) -> None:
        """Remove artifacts and checkpoints that were begun before that time in seconds since the epoch (force=true)."""
        for folder in self._folders(fingerprint):
            if begun(folder) >= before:
                continue
            (folder / "result.json").unlink(
                missing_ok=True
            )  # first, so that a partly removed folder counts as unfinished
            shutil.rmtree(folder, ignore_errors=True)

    def _folders(self, fingerprint: str) -> list[Path]:
        """Return the folders of a fingerprint, finished or not."""
        return sorted(p for p in self.root.glob(f"*-{fingerprint}") if p.is_dir())


def _unreadable(folder: Path, error: OSError) -> RunFailed:
    return RunFailed(
        f"cannot read the artifact {folder.name} ({error.strerror or error}); nothing was moved. Check the permissions "
        "and the disk, then type the same command again"
    )


def begun(folder: Path) -> float:
    """Return when an artifact's training was begun or last resumed, in seconds since the epoch; 0 if unknown."""
    with suppress(OSError):
        return (folder / "spec.json").stat().st_mtime
    return 0.0


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader, or a crash at any moment, leaves the old content or the new, never a part.

    Raise CannotWrite, with path and free space, if the disk is full or the folder cannot be written.
    """
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
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):  # an interruption
            raise
        free = shutil.disk_usage(next(p for p in path.absolute().parents if p.is_dir())).free
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            state = (
                "its folder was removed or replaced, and what was saved there is gone; the same command makes it anew"
            )
        else:
            state = "what was saved before is intact, and the same command resumes once there is room"
        raise CannotWrite(
            f"cannot write {path}: {error.strerror or error} ({free / 1e6:.0f} MB free there); {state}"
        ) from error


def sweep_temporaries(folder: Path) -> None:
    """Remove temporary files that a killed process left in a folder; the caller holds its lock."""
    for stale in folder.rglob(".*.tmp"):
        stale.unlink(missing_ok=True)
