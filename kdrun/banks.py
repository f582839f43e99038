"""Banks: a teacher's logits for the views of a training's images, on disk in the teacher's artifact. Knows no torch.

    ARTIFACT/banks/KEY.safetensors   known (K·N), and of the known rows the logits, or the k largest and their classes

A row is view · N + the image's index. KEY is a checksum of everything that determines the rows. The header says the
same in words and holds a checksum of the whole file. kdrun/training/bank.py reads and writes the tensors.
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
SCHEMA = 1  # part of what a bank is of: a file of another layout has another name
PENDING = "0" * 64  # stands in the place of the checksum while this is computed
LONGEST_HEADER = 100_000_000  # bytes, as in safetensors


class BankJson(TypedDict):
    """What a bank's header says of it."""

    of: dict[str, Any]  # everything that determines the rows
    views: int
    images: int
    classes: int
    known: int  # rows that are there, of views · images
    environments: list[str]  # in which they were computed


def key(of: Mapping[str, Any]) -> str:
    """Return the first 12 hex digits of the sha256 of what a bank is of."""
    return hashlib.sha256(canonical(of).encode()).hexdigest()[:12]


def place(artifact: Path, of: Mapping[str, Any]) -> Path:
    """Return the file of a bank in a teacher's folder."""
    return artifact / FOLDER / f"{key(of)}.safetensors"


def stored(artifact: Path) -> list[Path]:
    """Return the files of all banks in a teacher's folder."""
    return sorted((artifact / FOLDER).glob("*.safetensors"))


def metadata(content: BankJson) -> dict[str, str]:
    """Return what is to stand in the header of a bank's file before `commit` seals it."""
    return {"bank": canonical(content), "checksum": PENDING}


def peek(path: Path) -> BankJson | None:
    """Return what a bank's header says, without a check of the rest; None if there is none that can be read."""
    with suppress(OSError, ValueError):
        _, _, content = _header(path)
        return content
    return None


def check(path: Path) -> BankJson:
    """Return what a bank's header says, if the file is whole and what its name says.

    Raise ValueError, with the reason, if it is not, and OSError if it cannot be read.
    """
    head, checksum, content = _header(path)
    if _digest(path, head.replace(checksum, PENDING.encode(), 1)) != checksum:
        raise ValueError("its content does not match its checksum")
    if key(content["of"]) != path.stem:
        raise ValueError("it holds the logits for other images or settings than its name says")
    return content


def commit(temporary: Path, path: Path) -> None:
    """Seal a file that was written with `metadata`, and put it in its place. Raise OSError if that is not possible."""
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
    """Return the bytes before the tensors, the checksum among them, and what they say.

    The layout is that of safetensors: the header's length in 8 bytes, JSON with the place of each tensor, the tensors.
    """
    if path.exists() and not path.is_file():  # to read from a pipe would wait
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
    """Return the sha256, in hex, of a file that begins with `head` in place of its own beginning."""
    digest = hashlib.sha256(head)
    with path.open("rb") as file:
        file.seek(len(head))
        hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest().encode()
