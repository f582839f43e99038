"""A model's answers to images as a file: .safetensors, .npz, .csv or .parquet, written and read.

An array or a group of columns called `logits` or `probabilities` has a row for each image and a column for each class.
`name` (paths) or `index` (numbers) or both identify the images, and `classes` names the classes in their order:

    .npz           arrays logits or probabilities (N, C), name (N,) or index (N,), classes (C,)
    .safetensors   the same tensors; name and classes, as JSON lists, in the metadata
    .csv .parquet  columns name or index, and logits.CLASS or probabilities.CLASS for each class

Nothing is guessed from the numbers. The content is not compared with a data set here: answers.py does that. This file
is long because the reader and the writer of each format are kept together.
"""

import io
import json
import logging
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray

from kdrun.checks import installed, nearest_beside, no_file, typed_path
from kdrun.data import tabular
from kdrun.data.listing import listed

log = logging.getLogger(__name__)
KINDS = ("logits", "probabilities")
NAME, INDEX, CLASSES = "name", "index", "classes"
ABOUT = "kdrun_answers"
"""The entry with what kdrun writes about the network and its images; a file made by hand has none."""
VERSION = 1
"""Version of that entry; increased if older versions of kdrun would misread it."""
HOW = "docs/own-data.md shows how such a file is made"


@dataclass(frozen=True)
class AnswerFile:
    """The content of a file of answers, with a row for each of N images."""

    kind: str
    """logits or probabilities"""
    values: NDArray[np.floating]
    """(N, C)"""
    classes: tuple[str, ...]
    names: tuple[str, ...] | None = None
    """Names of the images, as in the data set."""
    indices: NDArray[np.int64] | None = None
    """(N,) positions among the stored training images."""
    about: Mapping[str, Any] = field(default_factory=dict)

    def image(self, row: int) -> str:
        """Return what the file calls the image of a row."""
        return self.names[row] if self.names is not None else f"index {self.indices[row]}"  # type: ignore[index]


def read(typed: str, key: str = "teacher.file") -> AnswerFile:
    """Return a file's content. Raise ValueError, beginning with `key`=`typed`, if it is damaged or no such file."""
    where = f"{key}={typed}"
    place = typed_path(typed, f"{key}=")
    if not place.is_file():
        near = nearest_beside(place, lambda p: p.suffix.lower() in _READERS)
        raise ValueError(f"{where}: {no_file(place)}.{near} Type {key}=FILE{_endings()}")
    read_one = _READERS[ending(place, where)]
    try:
        return read_one(place, where)
    except OSError as error:
        raise ValueError(f"{where}: cannot be read ({error.strerror or error})") from None


def content(answers: AnswerFile, suffix: str) -> bytes:
    """Return answers as the bytes of a file with the ending `suffix`; reading it gives the same float32 numbers."""
    return _WRITERS[suffix](answers)


def ending(place: Path, where: str) -> str:
    """Return the ending of a file. Raise ValueError, beginning with `where`, if it is none of the four or unusable."""
    suffix = place.suffix.lower()
    if suffix not in _READERS:
        raise ValueError(f"{where}: the ending chooses the format: type FILE{_endings()}")
    if suffix == ".parquet" and not installed("pyarrow"):
        raise ValueError(f"{where}: needs pyarrow, which is not installed; type pip install 'kdrun[parquet]'")
    return suffix


def _endings() -> str:
    *others, last = _READERS
    return f"{', FILE'.join(others)} or FILE{last}"


def _npz(place: Path, where: str) -> AnswerFile:
    try:
        with np.load(place, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            kind = _kind(file.files, where, NAME, INDEX, CLASSES, ABOUT)
            arrays = {entry: file[entry] for entry in (kind, NAME, INDEX, CLASSES, ABOUT) if entry in file.files}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        if str(error).startswith(where):
            raise
        hint = "; save names as text: np.array(names)" if "allow_pickle" in str(error) else ""
        raise ValueError(f"{where}: is no .npz file, or a damaged one ({error}{hint})") from None
    about = _about(str(arrays[ABOUT]), where) if ABOUT in arrays else {}
    words = {entry: _words(arrays[entry], entry, where) for entry in (NAME, CLASSES) if entry in arrays}
    return _made(kind, arrays[kind], words.get(CLASSES), words.get(NAME), arrays.get(INDEX), about, where)


def _safetensors(place: Path, where: str) -> AnswerFile:
    try:
        with safetensors.safe_open(place, framework="pt") as file:
            metadata = file.metadata() or {}
            kind = _kind(list(file.keys()), where, INDEX)
            tensors = {entry: file.get_tensor(entry) for entry in (kind, INDEX) if entry in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{where}: is no .safetensors file, or a damaged one ({error})") from None
    words: dict[str, list[str]] = {}
    for entry in (NAME, CLASSES):
        if entry in metadata:
            words[entry] = _json_list(metadata[entry], entry, where)
    about = _about(metadata[ABOUT], where) if ABOUT in metadata else {}
    values = tensors[kind].float() if tensors[kind].dtype == torch.bfloat16 else tensors[kind]
    index = tensors[INDEX].numpy() if INDEX in tensors else None
    return _made(kind, values.numpy(), words.get(CLASSES), words.get(NAME), index, about, where)


def _csv(place: Path, where: str) -> AnswerFile:
    lines = tabular.csv_lines(place, where)
    header = next(lines).cells
    kind, classes = _columns(header, where)
    at = [header.index(f"{kind}.{name}") for name in classes]
    name_at, index_at = (header.index(entry) if entry in header else None for entry in (NAME, INDEX))
    with place.open("rb") as file:
        file.seek(-min(1, place.stat().st_size), os.SEEK_END)
        ended = file.read() in (b"\n", b"\r")
    if not ended:
        log.warning("%s: its last line has no line break; if the file was cut short, its last answer is wrong", where)
    values: list[NDArray[np.float64]] = []
    names: list[str] = []
    indices: list[int] = []
    for number, cells in lines:
        try:
            values.append(np.array([cells[i] for i in at], dtype=np.float64))
        except ValueError:
            wrong = next(i for i in at if not _is_number(cells[i]))
            raise ValueError(f"{where}: line {number}: {header[wrong]} is {cells[wrong]!r}, not a number") from None
        if name_at is not None:
            names.append(cells[name_at])
        if index_at is not None:
            if not cells[index_at].isdecimal():
                raise ValueError(f"{where}: line {number}: index is {cells[index_at]!r}, not a whole number from 0")
            indices.append(int(cells[index_at]))
    table = np.stack(values) if values else np.zeros((0, len(classes)))
    index = np.array(indices) if index_at is not None else None
    return _made(kind, table, classes, names if name_at is not None else None, index, {}, where)


def _parquet(place: Path, where: str) -> AnswerFile:
    def chosen(header: list[str]) -> list[str]:
        kind, classes = _columns(header, where)
        return [entry for entry in (NAME, INDEX) if entry in header] + [f"{kind}.{name}" for name in classes]

    table = tabular.parquet_columns(place, where, chosen)
    kind, classes = _columns(table.column_names, where)
    columns = [table[f"{kind}.{name}"].to_numpy() for name in classes]
    for name, column in zip(classes, columns, strict=True):
        if column.dtype.kind != "f":
            raise ValueError(f"{where}: the column {kind}.{name} holds {table[f'{kind}.{name}'].type}, not numbers")
    there = {entry: table[entry].to_numpy() for entry in (NAME, INDEX) if entry in table.column_names}
    names = [str(one) for one in there[NAME]] if NAME in there else None
    metadata = table.schema.metadata or {}
    about = _about(metadata[ABOUT.encode()].decode(), where) if ABOUT.encode() in metadata else {}
    return _made(kind, np.stack(columns, axis=1), classes, names, there.get(INDEX), about, where)


def _columns(header: Sequence[str], where: str) -> tuple[str, list[str]]:
    """Return the kind of the answers and the classes, in the order of the columns, from the header of a table."""
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise ValueError(f"{where}: two columns are called {twice}; each needs a name of its own")
    kind = _kind(list(dict.fromkeys(name.partition(".")[0] for name in header)), where, NAME, INDEX, columns=True)
    return kind, [name.partition(".")[2] for name in header if name.startswith(f"{kind}.")]


def _kind(entries: Sequence[str], where: str, *known: str, columns: bool = False) -> str:
    """Return which of the two kinds a file has. Raise ValueError if it has none or both; log what is not read."""
    kinds = [kind for kind in KINDS if kind in entries]
    what, each = ("columns", ".CLASS") if columns else ("entries", "")
    if len(kinds) != 1:
        there = "both" if kinds else f"neither; its {what} are {listed(list(entries)) or 'none'}"
        wanted = " or ".join(f"{kind}{each}" for kind in KINDS)
        raise ValueError(f"{where}: needs {what} called {wanted}, and has {there}. {HOW}")
    if unread := [entry for entry in entries if entry not in (*kinds, *known)]:
        log.info("%s: %s not read", where, f"{listed(unread)} {'are' if len(unread) > 1 else 'is'}")
    return kinds[0]


def _made(
    kind: str,
    values: NDArray[Any],
    classes: Sequence[str] | None,
    names: Sequence[str] | None,
    indices: NDArray[Any] | None,
    about: Mapping[str, Any],
    where: str,
) -> AnswerFile:
    """Return the content. Raise ValueError if something is missing, or has a wrong type or shape."""
    if classes is None:
        raise ValueError(f"{where}: has no {CLASSES}: the names of the classes, in the order of the columns. {HOW}")
    if names is None and indices is None:
        raise ValueError(f"{where}: needs {NAME} or {INDEX}, which say to which image a row belongs. {HOW}")
    if values.dtype.kind != "f" or values.ndim != 2 or values.shape[1] != len(classes):
        raise ValueError(
            f"{where}: {kind} are {values.dtype} of shape {values.shape}; needs floating-point numbers of shape "
            f"(images, {len(classes)}), as there are {len(classes)} {CLASSES}"
        )
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    if indices is not None and (indices.dtype.kind not in "iu" or indices.ndim != 1):
        raise ValueError(f"{where}: {INDEX} is {indices.dtype} of shape {indices.shape}; needs whole numbers (images,)")
    for entry, given in ((NAME, names), (INDEX, indices)):
        if given is not None and len(given) != len(values):
            raise ValueError(f"{where}: has {len(values)} rows of {kind} and {len(given)} of {entry}")
    if not len(values):
        raise ValueError(f"{where}: has no rows")
    return AnswerFile(
        kind,
        values,
        tuple(classes),
        None if names is None else tuple(names),
        None if indices is None else indices.astype(np.int64),
        about,
    )


def _words(array: NDArray[Any], entry: str, where: str) -> list[str]:
    if array.dtype.kind != "U" or array.ndim != 1:
        raise ValueError(f"{where}: {entry} is {array.dtype} of shape {array.shape}; needs text, one word for each")
    return [str(one) for one in array]


def _json_list(text: str, entry: str, where: str) -> list[str]:
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(one, str) for one in words):
        raise ValueError(f"{where}: {entry} in its metadata must be a list of words as JSON: json.dumps(names)")
    return words


def _about(text: str, where: str) -> dict[str, Any]:
    try:
        about = json.loads(text)
        newer = about["version"] > VERSION
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{where}: its entry {ABOUT} is damaged; write it again with kdrun answers") from None
    if newer:
        raise ValueError(f"{where}: was written by a newer kdrun (version {about['version']} of the format)")
    return dict(about)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _npz_bytes(answers: AnswerFile) -> bytes:
    arrays: dict[str, NDArray[Any]] = {answers.kind: answers.values, CLASSES: np.array(answers.classes)}
    if answers.names is not None:
        arrays[NAME] = np.array(answers.names)
    if answers.indices is not None:
        arrays[INDEX] = answers.indices
    made = io.BytesIO()
    np.savez(made, **arrays, **{ABOUT: np.array(json.dumps(answers.about))})  # type: ignore[arg-type]
    return made.getvalue()


def _safetensors_bytes(answers: AnswerFile) -> bytes:
    tensors = {answers.kind: torch.from_numpy(np.ascontiguousarray(answers.values))}
    if answers.indices is not None:
        tensors[INDEX] = torch.from_numpy(answers.indices)
    metadata = {CLASSES: json.dumps(answers.classes), ABOUT: json.dumps(answers.about)}
    if answers.names is not None:
        metadata[NAME] = json.dumps(answers.names)
    return safetensors.torch.save(tensors, metadata)


def _csv_bytes(answers: AnswerFile) -> bytes:
    import csv

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    there = [*([NAME] if answers.names is not None else []), *([INDEX] if answers.indices is not None else [])]
    writer.writerow([*there, *(f"{answers.kind}.{name}" for name in answers.classes)])
    for row, values in enumerate(answers.values):
        names = [] if answers.names is None else [answers.names[row]]
        indices = [] if answers.indices is None else [int(answers.indices[row])]
        writer.writerow([*names, *indices, *(f"{value:.9g}" for value in values)])  # 9 digits distinguish all float32
    return text.getvalue().encode()


def _parquet_bytes(answers: AnswerFile) -> bytes:
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, Any] = {} if answers.names is None else {NAME: list(answers.names)}
    columns |= {} if answers.indices is None else {INDEX: answers.indices}
    columns |= {f"{answers.kind}.{name}": answers.values[:, i] for i, name in enumerate(answers.classes)}
    made = io.BytesIO()
    table = pyarrow.table(columns).replace_schema_metadata({ABOUT: json.dumps(answers.about)})
    pyarrow.parquet.write_table(table, made)
    return made.getvalue()


_READERS: dict[str, Callable[[Path, str], AnswerFile]] = {
    ".safetensors": _safetensors,
    ".npz": _npz,
    ".csv": _csv,
    ".parquet": _parquet,
}
_WRITERS: dict[str, Callable[[AnswerFile], bytes]] = {
    ".safetensors": _safetensors_bytes,
    ".npz": _npz_bytes,
    ".csv": _csv_bytes,
    ".parquet": _parquet_bytes,
}
ENDINGS = tuple(_READERS)
