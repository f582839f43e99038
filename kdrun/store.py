"""The store: artifacts on disk, found by fingerprint, locked while trained, committed as a whole. Knows no torch.

    store/ROLE-DATASET-MODEL-FINGERPRINT/   spec.json result.json history.csv model.safetensors logits.safetensors

result.json is written last, with the checksums of the others: a folder without it is unfinished.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrun import faults, locks, sealed
from kdrun.locks import Busy, Holder
from kdrun.records import ResultJson
from kdrun.spec import Spec, differences, finite

FILES = ("spec.json", "history.csv", "model.safetensors", "logits.safetensors")  # of an artifact, beside result.json

ANEW = "anew"  # the file of an artifact that names the commands with force=true for which it was trained anew


class RunFailed(RuntimeError):
    """A run that could not be finished, with a reason for people; the command exits 3."""


class CannotWrite(RunFailed):
    """The output folder cannot be written, as when the disk is full; a sweep starts no further cell."""


class Unreadable(RunFailed):
    """An artifact that cannot be read, as for want of permission; it may be whole."""

    def __init__(self, folder: Path, reason: str, sentence: str = "") -> None:
        self.folder, self.reason = folder, reason
        super().__init__(
            sentence
            or f"cannot read the artifact {folder.name} ({reason}); nothing was moved. Check the permissions and the "
            "disk, then type the same command again"
        )


class Damaged(Unreadable):
    """An artifact whose committed files are damaged or gone."""

    def __init__(self, folder: Path, reason: str) -> None:
        sentence = f"the artifact {folder.name} is damaged ({reason}); nothing was moved. The command that trained it "
        super().__init__(folder, reason, sentence + "sets it aside and trains it anew")


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
                result = read_result(folder)
            except FileNotFoundError:
                continue
            check_files(folder, result, result["checksums"])
            return Artifact(folder, _spec(folder, result), dict(result))
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
        """Return which process holds the lock of a fingerprint; None if none does, or if it is not known."""
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
        return Artifact(folder, Spec.from_json(files["spec.json"].decode()), dict(read_result(folder)))

    def begin_anew(self, folder: Path, spec: Spec, command: str) -> None:
        """Remove what there is of a training, unless this command has done so already (force=true).

        `command` is the token of one command, shared by all its processes. The caller holds the lock. `folder` is where
        the training will lie. A crash in between leaves an unfinished folder that is begun anew once more.
        """
        for place in self._folders(spec.fingerprint) or [folder]:
            commands = _begun_anew(place)
            if command in commands:
                continue
            self.remove(place)
            write_atomic(place / ANEW, "\n".join([*commands, command]).encode())

    def begun_anew(self, artifact: Artifact, command: str) -> bool:
        """Return whether an artifact was trained anew for this command with force=true, or since by another one."""
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
        """Remove what a kill left in a finished folder, unless another process is at work there."""
        if leftovers(folder):
            with suppress(Busy, RunFailed, OSError), self.locked(fingerprint, None):
                if (folder / "result.json").is_file():  # still
                    for path in leftovers(folder):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _folders(self, fingerprint: str) -> list[Path]:
        """Return the folders of a fingerprint, finished or not."""
        return sorted(p for p in self.root.glob(f"*-{fingerprint}") if p.is_dir())


def read_result(folder: Path) -> ResultJson:
    """Return an artifact's result.json, if it is whole and that of this folder.

    One of version 1, which has no checksum, must agree with the artifact's other files. Raise FileNotFoundError if
    there is none, Damaged, and RunFailed if it cannot be read.
    """
    try:
        result = sealed.read(folder / "result.json", ResultJson)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(folder, error.strerror or str(error)) from error
    except sealed.Newer as error:  # it is whole: nothing may set it aside
        raise Unreadable(folder, str(error), f"the artifact {folder.name} cannot be read: {error}") from error
    except ValueError as error:
        raise Damaged(folder, f"result.json: {error}") from error
    if not folder.name.endswith(f"-{result['fingerprint']}"):
        raise Damaged(folder, f"result.json: it is that of {result['fingerprint']}, another training")
    if not sealed.is_sealed(result):
        from kdrun import unsealed  # for which numpy is imported

        others = {name for name in FILES if (folder / name).exists()} | result["checksums"].keys()
        check_files(folder, result, others - {"model.safetensors"})
        try:
            wrong = next(unsealed.disagreements(folder, result, _spec(folder, result)), None)
        except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
            raise Damaged(folder, f"result.json: {error}") from error
        if wrong:
            raise Damaged(folder, f"result.json: its {wrong} does not agree with the other files")
    return result


def check_files(folder: Path, result: ResultJson, names: Iterable[str]) -> None:
    """Raise Damaged if one of these files of an artifact does not fit its checksum, RunFailed if it cannot be read."""
    for name in names:
        path, known = folder / name, result["checksums"].get(name)
        try:
            # a pipe or a device would be read for ever
            if "/" in name or not path.is_file() or file_sha256(path) != known:
                raise Damaged(folder, name)
        except ValueError as error:
            raise Damaged(folder, f"{name}: {error}") from error
        except OSError as error:
            raise Unreadable(folder, error.strerror or str(error)) from error


def _spec(folder: Path, result: ResultJson) -> Spec:
    """Return the spec of a result. Raise Damaged if spec.json is damaged or of another training."""
    try:
        spec = Spec.from_json((folder / "spec.json").read_text())
        fingerprint = spec.fingerprint
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError, RecursionError) as error:
        raise Damaged(folder, f"spec.json: {error}") from error
    except OSError as error:
        raise Unreadable(folder, error.strerror or str(error)) from error
    if fingerprint != result["fingerprint"]:
        raise Damaged(folder, f"spec.json: it is that of {fingerprint}, another training")
    return spec


def _begun_anew(folder: Path) -> list[str]:
    """Return the tokens of the commands with force=true for which a training was begun anew."""
    with suppress(OSError, ValueError):
        return (folder / ANEW).read_text().split()
    return []


def _not_locked(path: Path, error: OSError) -> RunFailed:
    """Return what to raise if a lock file cannot be made or opened."""
    what = f"cannot lock {path.name} for training"
    if isinstance(error, PermissionError):
        return RunFailed(f"{what}: {permission(path)}")
    return CannotWrite(f"{what}: {path}: {error.strerror or error}")


def permission(path: Path) -> str:
    """Return whose a file or its folder is that this user may not write, and what either can do about it."""
    above = (p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    place = next((p for p in above if not os.access(p, os.W_OK)), path)
    try:
        owner = place.owner()
    except (KeyError, OSError):  # a user without a name
        owner = f"user {place.stat().st_uid}" if place.exists() else "somebody else"
    return (
        f"{place} belongs to {owner}, and you may not write it. {owner} can share what is there with chmod -R g+rwX, "
        "and what comes with umask 002; or choose a folder of your own with outputs=DIR"
    )


def leftovers(folder: Path) -> list[Path]:
    """Return what a kill left in a finished folder: its checkpoints, and files that were being written.

    Without those below measured/, which are written without the lock.
    """
    return [path for path in (folder / "checkpoint",) if path.is_dir()] + sorted(folder.glob(".*.tmp"))


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
        if isinstance(error, PermissionError):
            raise CannotWrite(f"cannot write {path}: {permission(path)}") from error
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


def write_sealed(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record atomically, with its seal; NaN and infinities become null. Raise CannotWrite as write_atomic."""
    write_atomic(path, sealed.seal(finite(record)))


def sweep_temporaries(folder: Path) -> None:
    """Remove temporary files that a killed process left in a folder; the caller holds its lock."""
    for stale in folder.rglob(".*.tmp"):
        stale.unlink(missing_ok=True)
