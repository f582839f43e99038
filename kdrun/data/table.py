"""Your own images, listed in a table: a .csv or .parquet file with the path and the label of each."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdrun.checks import nearest, nearest_beside
from kdrun.data import files, layout, tabular
from kdrun.data.decoding import Source
from kdrun.data.listing import listed
from kdrun.data.sets import Dataset

__all__ = ["table"]

MOST_NAMED = 10


class Row(NamedTuple):
    """One image of a table."""

    line: int
    """The line of a .csv, where the header is 1; the row of a .parquet, from 1."""
    path: str
    label: str
    split: str


def table(
    *,
    name: str,
    file: str | None,
    path_column: str,
    label_column: str,
    split_column: str,
    size: int | Sequence[int] | None,
    channels: int | None,
    on_bad_image: str,
    max_resident_gb: float,
    test_fraction: float | None,
    val_fraction: float,
    split_seed: int,
) -> Dataset:
    """Return the images that a table names, with the classes of its labels in alphabetical order.

    Paths are relative to the table's folder. Images are ordered by class, then by path, as from folders: so
    the order of rows does not matter, and a table of a folder's images gives the same data. Without a column
    for the split, or without "test" in it, `test_fraction` draws test images. The other settings are those of
    `files.from_files`. Raise ValueError, before training starts, if anything is wrong with the table or the settings.
    """
    files.refuse_settings(channels=channels, on_bad_image=on_bad_image, max_resident_gb=max_resident_gb)
    if file is None:
        raise ValueError(
            "dataset.file: which table? Type dataset.file=labels.csv, or a .parquet, with the columns "
            f"{path_column} and {label_column}, and perhaps {split_column}"
        )
    place = Path(file).expanduser()
    if not place.is_file():
        near = nearest_beside(place, lambda p: p.suffix.lower() in (".csv", ".tsv", ".parquet"))
        what = "is not a regular file." if place.exists() else f"there is no such file.{near}"
        raise ValueError(f"dataset.file={file}: {what} Type dataset.file=FILE.csv or FILE.parquet")
    parquet = tabular.is_parquet(place)
    columns = (path_column, label_column, split_column)
    rows = list(_parquet(place, columns) if parquet else _csv(place, columns))
    images = _classified(rows, place, "row" if parquet else "line", columns, test_fraction, on_bad_image == "skip")
    return files.from_files(
        images,
        name=name,
        size=size,
        channels=channels,
        on_bad_image=on_bad_image,
        max_resident_gb=max_resident_gb,
        val_fraction=val_fraction,
        split_seed=split_seed,
        test_fraction=test_fraction,
    )


def _classified(
    rows: Sequence[Row], place: Path, unit: str, columns: Sequence[str], test_fraction: float | None, skip: bool
) -> layout.Listing:
    """Return the images by part and class. Raise ValueError, with their lines, if rows are wrong."""
    where = f"dataset.file={place}"
    if not rows:
        raise ValueError(f"{where}: has no rows below its header")
    _refuse(where, [f"{unit} {row.line}: no {columns[0]}" for row in rows if not row.path])
    _refuse(where, [f"{unit} {row.line}: no {columns[1]} for {row.path}" for row in rows if not row.label])
    _refuse(
        where, [f"{unit} {row.line}: {row.label!r} cannot be printed" for row in rows if not row.label.isprintable()]
    )
    parts = _parts(rows, where, unit, columns[2])
    sources = [_source(place.parent, row.path) for row in rows]
    _refuse(where, _twice(rows, sources, unit), "each image needs one row")
    if not skip:
        absent = [_absent(row, source, unit) for row, source in zip(rows, sources, strict=True)]
        _refuse(
            where,
            [line for line in absent if line],
            f"paths are relative to {place.parent.absolute()}; correct them, or leave the rows out with "
            "dataset.on_bad_image=skip",
        )
    if test_fraction is not None and "test" in parts:
        raise ValueError(f"dataset.test_fraction={test_fraction:g}: {where} has test images of its own; leave it out")
    if test_fraction is None and "test" not in parts:
        raise ValueError(
            f"{where}: no test images; add a column {columns[2]} with train and test (and val, if you like), or type "
            "dataset.test_fraction=0.2, which draws them from every class"
        )
    if "train" not in parts:
        raise ValueError(f"{where}: no training images; {columns[2]} holds {listed(sorted(set(parts)))} alone")
    classes = sorted({row.label for row in rows})
    for part in set(parts):
        present = {row.label for row, own in zip(rows, parts, strict=True) if own == part}
        if lacking := [one for one in classes if one not in present]:
            raise ValueError(
                f"{where}: every part needs the same classes, but {part} has no {listed(lacking)}; add rows, or remove "
                "the class from the other parts"
            )
    numbers = {one: number for number, one in enumerate(classes)}
    order = sorted(range(len(rows)), key=lambda i: (numbers[rows[i].label], rows[i].path))
    chosen = {part: [i for i in order if parts[i] == part] for part in layout.PARTS if part in parts}
    return layout.Listing(
        tuple(classes),
        {part: [sources[i] for i in inside] for part, inside in chosen.items()},
        {part: [numbers[rows[i].label] for i in inside] for part, inside in chosen.items()},
    )


def _parts(rows: Sequence[Row], where: str, unit: str, column: str) -> list[str]:
    """Return the part of each row; "train" for all if no row names one."""
    if not any(row.split for row in rows):
        return ["train"] * len(rows)
    missing = [f"{unit} {row.line}: no {column}" for row in rows if not row.split]
    _refuse(where, missing, f"fill in {column} in every row, or in none")
    unknown = [row for row in rows if row.split.lower() not in layout.WORDS]
    hint = nearest(unknown[0].split.lower(), layout.WORDS) if unknown else ""
    _refuse(
        where, [f"{unit} {row.line}: {column} is {row.split}" for row in unknown], f"choose train, val or test.{hint}"
    )
    return [layout.WORDS[row.split.lower()] for row in rows]


def _source(folder: Path, path: str) -> Source:
    """Return the file that a path means: relative to the table, with slashes of either kind."""
    if "\\" in path and not (folder / path).exists():
        path = path.replace("\\", "/")
    if os.path.isabs(path):
        return Source(os.path.dirname(path), os.path.basename(path))
    return Source(str(folder), os.path.normpath(path))


def _twice(rows: Sequence[Row], sources: Sequence[Source], unit: str) -> list[str]:
    """Return a message for each row that names the same file as an earlier row."""
    first: dict[Source, Row] = {}
    problems = []
    for row, source in zip(rows, sources, strict=True):
        before = first.setdefault(source, row)
        if before is not row:
            differs = [
                f"{a or 'nothing'} there, {b or 'nothing'} here"
                for a, b in zip(before[2:], row[2:], strict=True)
                if a != b
            ]
            problems.append(f"{unit} {row.line}: {row.path} is already in {unit} {before.line}{_in_brackets(differs)}")
    return problems


def _in_brackets(words: Sequence[str]) -> str:
    return f" ({'; '.join(words)})" if words else ""


def _absent(row: Row, source: Source, unit: str) -> str | None:
    place = os.path.join(*source)
    if os.path.isfile(place):
        return None
    if row.path.startswith(("http://", "https://", "s3://", "gs://")):
        return f"{unit} {row.line}: {row.path} is an address; download the images first"
    return f"{unit} {row.line}: {'a folder' if os.path.isdir(place) else 'there is no file'} {row.path}"


def _refuse(where: str, problems: Sequence[str], remedy: str = "") -> None:
    """Raise ValueError with the first of some problems, if there are any."""
    if problems:
        more = f"; and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
        raise ValueError(f"{where}: {'; '.join(problems[:MOST_NAMED])}{more}{f'. {remedy}' if remedy else ''}")


def _csv(place: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a .csv file."""
    where = f"dataset.file={place}"
    lines = tabular.csv_lines(place, where)
    places = _places(next(lines).cells, columns, where)
    for number, cells in lines:
        yield Row(number, *("" if at is None else cells[at] for at in places))


def _parquet(place: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a .parquet file."""
    where = f"dataset.file={place}"

    def chosen(header: list[str]) -> list[str]:
        return [column for column, at in zip(columns, _places(header, columns, where), strict=True) if at is not None]

    content = tabular.parquet_columns(place, where, chosen)
    import pyarrow

    for name in content.column_names:
        if pyarrow.types.is_nested(content[name].type) or pyarrow.types.is_binary(content[name].type):
            raise ValueError(f"{where}: the column {name} holds {content[name].type}, not words")
    names = content.column_names
    cells = [content[column].to_pylist() if column in names else [""] * content.num_rows for column in columns]
    for number, row in enumerate(zip(*cells, strict=True), 1):
        yield Row(number, *("" if _missing(cell) else str(cell).strip() for cell in row))


def _missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _places(header: Sequence[str], columns: Sequence[str], where: str) -> list[int | None]:
    """Return the positions of the columns of path, label and split; None if there is no column for the split."""
    places: list[int | None] = []
    for column, key in zip(columns, ("path", "label", "split"), strict=True):
        if (count := header.count(column)) > 1:
            raise ValueError(f"{where}: two columns are called {column}; each needs a name of its own")
        if not count and key != "split":
            there = listed([name or "one without a name" for name in header]) or "none"
            raise ValueError(
                f"{where}: no column {column}; there are: {there}. Type dataset.{key}_column=NAME to use another column"
            )
        places.append(header.index(column) if count else None)
    if places[2] is None and (alike := [name for name in header if name.lower() == columns[2].lower()]):
        raise ValueError(
            f"{where}: no column {columns[2]}, but a column {alike[0]}; type dataset.split_column={alike[0]} to use it "
            "(or rename it if it is not the split)"
        )
    if places[2] is None and columns[2] != "split":
        raise ValueError(
            f"{where}: no column {columns[2]} (dataset.split_column={columns[2]}); there are: {listed(header)}"
        )
    return places
