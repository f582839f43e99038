"""Artifacts: the files of a finished training, and checks that they are intact. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kdrun import sealed
from kdrun.files import RunFailed, file_sha256
from kdrun.records import Part, ResultJson
from kdrun.spec import Spec

FILES = ("spec.json", "history.csv", "model.safetensors", "logits.safetensors")  # besides result.json
ANSWERS = "answers.safetensors"  # in place of the network, for a teacher that is another model's answers


class Unreadable(RunFailed):
    """An artifact that cannot be read, for example because of permissions; it may be intact."""

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
        super().__init__(folder, reason, sentence + "moves it aside and retrains it")


@dataclass(frozen=True)
class Artifact:
    """What a finished training has left on disk."""

    folder: Path
    spec: Spec
    result: ResultJson

    @property
    def fingerprint(self) -> str:
        """The spec's fingerprint, by which the store finds it."""
        return self.spec.fingerprint

    @property
    def finished(self) -> bool:
        """Whether the artifact has usable weights; a diverged training is recorded without weights."""
        return bool(self.result["status"] == "done")

    def accuracy(self, part: Part) -> float | None:
        """Return the accuracy of the selected epoch on a part of the data; None if it was not measured there."""
        point = self.result["selected"]
        measured = point[part] if point else None
        return measured["accuracy"] if measured else None


def read_result(folder: Path) -> ResultJson:
    """Return an artifact's result.json, after checking that it is intact and belongs to this folder.

    A file of version 1 has no checksum, so it must agree with the artifact's other files. Raise FileNotFoundError if
    there is no result.json, Damaged if a check fails, and Unreadable if it cannot be read.
    """
    try:
        result = sealed.read(folder / "result.json", ResultJson)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(folder, error.strerror or str(error)) from error
    except sealed.Newer as error:  # it is intact, so it must not be set aside as damaged
        raise Unreadable(folder, str(error), f"the artifact {folder.name} cannot be read: {error}") from error
    except ValueError as error:
        raise Damaged(folder, f"result.json: {error}") from error
    if not folder.name.endswith(f"-{result['fingerprint']}"):
        raise Damaged(folder, f"result.json: it belongs to another training, {result['fingerprint']}")
    if not sealed.is_sealed(result):
        from kdrun import unsealed  # imported late, because it needs numpy

        others = {name for name in FILES if (folder / name).exists()} | result["checksums"].keys()
        check_files(folder, result, others - {"model.safetensors"})
        try:
            wrong = next(unsealed.disagreements(folder, result, read_spec(folder, result)), None)
        except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
            raise Damaged(folder, f"result.json: {error}") from error
        if wrong:
            raise Damaged(folder, f"result.json: its {wrong} does not match the other files")
    return result


def check_files(folder: Path, result: ResultJson, names: Iterable[str]) -> None:
    """Raise Damaged if one of these files does not match its checksum, Unreadable if it cannot be read."""
    for name in names:
        path, known = folder / name, result["checksums"].get(name)
        try:
            # is_file, because reading a pipe or a device would never end
            if "/" in name or not path.is_file() or file_sha256(path) != known:
                raise Damaged(folder, name)
        except ValueError as error:
            raise Damaged(folder, f"{name}: {error}") from error
        except OSError as error:
            raise Unreadable(folder, error.strerror or str(error)) from error


def read_spec(folder: Path, result: ResultJson) -> Spec:
    """Return the spec of a result. Raise Damaged if spec.json is damaged or of another training."""
    try:
        spec = Spec.from_json((folder / "spec.json").read_text())
        fingerprint = spec.fingerprint
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError, RecursionError) as error:
        raise Damaged(folder, f"spec.json: {error}") from error
    except OSError as error:
        raise Unreadable(folder, error.strerror or str(error)) from error
    if fingerprint != result["fingerprint"]:
        raise Damaged(folder, f"spec.json: it belongs to another training, {fingerprint}")
    return spec


def leftovers(folder: Path) -> list[Path]:
    """Return what a killed command left in a finished folder: checkpoints, and files that were being written.

    Files below measured/ are excluded, because they are written without holding the lock.
    """
    return [path for path in (folder / "checkpoint",) if path.is_dir()] + sorted(folder.glob(".*.tmp"))
