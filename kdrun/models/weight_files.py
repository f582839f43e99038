"""Reading weight files: safetensors, or torch files that hold only tensors."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import pickletools
import re
import tarfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdrun.checks import file_and_entry

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
DEEPEST = 4  # levels of nested dictionaries that are searched for weights
LONGEST = 2**26  # bytes of a pickle that are searched for a foreign type
POINTER = b"version https://git-lfs.github.com/spec/"


def is_file_name(weights: str) -> bool:
    """Return whether `weights` names a file, or FILE:ENTRY, rather than a published set such as DEFAULT."""
    names = (weights, weights.rpartition(":")[0])
    return file_and_entry(weights) is not None or any(Path(name).suffix in SUFFIXES for name in names)


def file_digest(path: str | Path) -> str:
    """Return the sha256 of a file's content. Raise ValueError if it does not exist or cannot be read."""
    _refuse_no_file(Path(path))
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(_unreadable(path, error)) from None


def weights_digest(weights: str | Path) -> str:
    """Return the sha256 of the file in FILE or FILE:ENTRY, followed by :ENTRY. Raise ValueError if there is no file."""
    path, entry = file_and_entry(weights) or (Path(weights), None)
    return file_digest(path) if entry is None else f"{file_digest(path)}:{entry}"


def read_weights(path: str | Path) -> dict[str, dict[str, Tensor]]:
    """Return all state dicts in a weight file, on the CPU, by entry, such as model or checkpoint.ema.

    A file that is a single state dict has the entry "". A torch file is always read with weights_only=True.
    Raise ValueError, with its name, if it cannot be read, is damaged, holds no weights, or asks for a type whose
    loading could run code.
    """
    path = Path(path)
    _refuse_no_file(path)
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise ValueError(_unreadable(path, error)) from None
    if not start:
        raise ValueError(f"{path}: is empty; copy or download it again")
    if start.startswith(POINTER):
        raise ValueError(f"{path}: is a Git LFS pointer, not the weights; fetch them with git lfs pull")
    safe = path.suffix == ".safetensors" or _looks_like_safetensors(path, start)
    content: Any
    try:
        if safe:
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            if start.startswith(b"PK"):
                _compare_checksums(path)
            elif tarfile.is_tarfile(path):  # torch would unpack its members into a temporary folder
                raise ValueError("a tar archive, as torch wrote until 2017: load and save it with torch once more")
            with warnings.catch_warnings(action="ignore"):  # about pickles not written by torch.save
                content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(_unreadable(path, error)) from None
    except Exception as error:  # a damaged file raises any kind of error in its reader
        if (text := _text(start)) is not None:
            raise ValueError(f"{path}: is text, not weights (it begins {text!r}); is it the right file?") from None
        if isinstance(error, pickle.UnpicklingError) and not safe:
            raise ValueError(f"{path}: {_refused(path, error)}") from None
        kind = "safetensors" if safe else "torch"
        reason = _plain(error) or type(error).__name__
        raise ValueError(f"{path}: an incomplete {kind} file ({reason}); copy or download it again") from None
    states = dict(_state_dicts(content))
    if not states:
        raise ValueError(f"{path}: contains no state dict (names to tensors), but {type(content).__name__}")
    return states


def _refuse_no_file(path: Path) -> None:
    """Raise ValueError if a path is no regular file: opening a pipe would wait without end."""
    place = os.path.abspath(path)
    if os.path.isdir(path):
        raise ValueError(f"weights: {place} is a folder; name the file of weights in it")
    if not os.path.isfile(path):
        what = f"{place} is not a regular file" if os.path.exists(path) else f"there is no file {place}"
        raise ValueError(f"weights: {what}")


def _unreadable(path: str | Path, error: OSError) -> str:
    return f"{path}: cannot be read ({error.strerror or error}); check its size and permissions with ls -l"


def _looks_like_safetensors(path: Path, start: bytes) -> bool:
    """Return whether a file begins as safetensors do, with the length of a header and a JSON object."""
    return start[8:9] == b"{" and 8 + int.from_bytes(start[:8], "little") <= path.stat().st_size


def _compare_checksums(path: Path) -> None:
    """Raise BadZipFile if a member of an archive does not match its checksum, which torch does not verify.

    A checksum of 0 means none, as written with torch.serialization.set_crc32_options(False).
    """
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.CRC:
                with archive.open(info) as member:
                    while member.read(2**20):
                        pass


def _text(start: bytes) -> str | None:
    """Return the beginning of a file if it is printable text, such as a web page; else None."""
    text = start.decode("utf-8", errors="ignore")
    whole = text and all(c.isprintable() or c.isspace() for c in text)
    return text.split("\n")[0][:30] if whole else None


def _state_dicts(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every dictionary that holds only named tensors, with the keys that lead to it."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if named and len(named) == len(content) and all(isinstance(value, Tensor) for value in named.values()):
        yield name, named
        return
    for key, value in named.items():
        yield from _state_dicts(value, f"{name}.{key}" if name else key, depth + 1)


def _refused(path: Path, error: Exception) -> str:
    """Return the message for a torch file that holds more than tensors."""
    _, _, reason = str(error).partition("WeightsUnpickler error:")
    match = re.search(r"(?:GLOBAL|class|function) ([\w.]+\.\w+)", reason)
    if name := match[1] if match else _first_foreign_type(path):
        return (
            f"refused: it contains {name} besides tensors, and loading that could run code. Save the state dict alone, "
            "torch.save(model.state_dict(), FILE), preferably as .safetensors"
        )
    return (
        f"torch cannot read it as weights ({_plain(reason or error)}); name a file of weights, preferably .safetensors"
    )


def _first_foreign_type(path: Path) -> str:
    """Return the first type in a pickle that is not torch's; the pickle is parsed, but not executed."""
    texts = list[str]()
    with suppress(Exception):  # no pickle, or a damaged one: the reader's own message is enough
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                content = archive.open(name).read(LONGEST)
        else:
            with open(path, "rb") as file:
                content = file.read(LONGEST)
        stream = io.BytesIO(content)
        while stream.tell() < len(content):  # old torch files are several pickles
            top, memo = None, list[Any]()  # a name is made of two strings on the stack
            for operation, argument, _ in pickletools.genops(stream):
                if operation.name in ("GLOBAL", "STACK_GLOBAL"):
                    name = ".".join(texts[-2:]) if argument is None else str(argument).replace(" ", ".")
                    if not name.startswith(("torch.", "collections.")):
                        return name
                if operation.name == "MEMOIZE":
                    memo.append(top)
                top = memo[int(argument or 0)] if operation.name in ("BINGET", "LONG_BINGET") and memo else argument
                texts += [top] if isinstance(top, str) else []
    return ""


def _plain(message: object) -> str:
    """Return the first line of torch's message, without the codes that make it bold."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(message)).strip().split("\n")[0]
