"""Banks: a teacher's logits for the views of a training's images, on disk in the teacher's artifact.

    ARTIFACT/banks/KEY.safetensors   known (K·N), and for the known rows the logits, or the k largest and their classes

The row of an image is view · N + its index. KEY is a checksum of everything that determines the rows. The header has
the same in plain text, and a checksum of the whole file. kdrun/training/bank.py reads and writes the tensors. Does
not import torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from kdrun.spec import canonical

FOLDER = "banks"
SCHEMA = 1  # part of the key: a file with another layout has another name
PENDING = "0" * 64  # placeholder for the checksum while it is computed
LONGEST_HEADER = 100_000_000  # bytes, as in safetensors


class BankJson(TypedDict):
    """The content of a bank's header."""

    of: dict[str, Any]  # everything that determines the rows
    views: int
    images: int
    classes: int
    known: int  # number of stored rows, at most views · images
    environments: list[str]  # those in which the rows were computed


def key(of: Mapping[str, Any]) -> str:
    """Return the first 12 hex digits of the sha256 of everything that determines a bank's rows."""
    return hashlib.sha256(canonical(of).encode()).hexdigest()[:12]


def place(artifact: Path, of: Mapping[str, Any]) -> Path:
    """Return the file of a bank in a teacher's folder."""
    return artifact / FOLDER / f"{key(of)}.safetensors"


def stored(artifact: Path) -> list[Path]:
    """Return the files of all banks in a teacher's folder."""
    return sorted((artifact / FOLDER).glob("*.safetensors"))


def metadata(content: BankJson) -> dict[str, str]:
    """Return the metadata to write into a bank's file, which `commit` then seals."""
    return {"bank": canonical(content), "checksum": PENDING}


def peek(path: Path) -> BankJson | None:
    """Return a bank's header without checking the rest of the file; None if there is no readable one."""
    with suppress(OSError, ValueError):
        _, _, content = _header(path)
        return content
    return None


def check(path: Path) -> BankJson:
    """Return a bank's header, after checking that the file is intact and matches its name.

    Raise ValueError, with the reason, if a check fails, and OSError if the file cannot be read.
    """
    head, checksum, content = _header(path)
    if _digest(path, head.replace(checksum, PENDING.encode(), 1)) != checksum:
        raise ValueError("its content does not match its checksum")
    if key(content["of"]) != path.stem:
        raise ValueError("it holds the logits for other images or settings than its name says")
    return content


def commit(temporary: Path, path: Path) -> None:
    """Seal a file that was written with `metadata`, and move it to `path`. Raise OSError if that is not possible."""
    head, _, _ = _header(temporary)
    checksum = _digest(temporary, head)
    with temporary.open("r+b") as file:
        file.write(head.replace(PENDING.encode(), checksum, 1))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _header(path: Path) -> tuple[bytes, bytes, BankJson]:
    """Return the bytes before the tensors, the checksum in them, and the parsed header.

    The layout is that of safetensors: the header's length in 8 bytes, JSON with each tensor's offsets, the tensors.
    """
    if path.exists() and not path.is_file():  # reading from a pipe would block
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > LONGEST_HEADER:
            raise ValueError("it is no bank")
        head += file.read(length)
        there = os.fstat(file.fileno()).st_size
    try:
        header: dict[str, Any] = json.loads(head[8:])
        words = header.pop("__metadata__")
        checksum, content = words["checksum"].encode(), json.loads(words["bank"])
        end = len(head) + max(tensor["data_offsets"][1] for tensor in header.values())
        wrong = sorted(BankJson.__required_keys__ - content.keys())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("its header is damaged") from None
    if wrong:
        raise ValueError(f"its header lacks {wrong[0]}")
    if there != end:
        raise ValueError(f"it is cut short: {there:,} of {end:,} bytes" if there < end else "bytes were added to it")
    return head, checksum, content


def _digest(path: Path, head: bytes) -> bytes:
    """Return the sha256, in hex, of a file's content with its first bytes replaced by `head`."""
    digest = hashlib.sha256(head)
    with path.open("rb") as file:
        file.seek(len(head))
        hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest().encode()
